"""Asks mixer whether a client may have the network service, on the connection's attributes (istio.mixer.v1 Check).

One decision to know: the principal is the one that the connection's certificate proves, never one that a path claims.
The forwarder's call for the endpoint isn't asked about again: it is part of a connection that was allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import grpc
import structlog
from google.rpc import code_pb2

from meshwright.api.istio.mixer.v1 import attributes_pb2, mixer_pb2, mixer_pb2_grpc
from meshwright.nsm.chain import Exchange, Proceed
from meshwright.nsm.errors import PolicyDenied, PolicyUnavailable
from meshwright.nsm.wire import Connection, NetworkServiceRequest
from meshwright.nsm_registry.manager.choose import from_forwarder
from meshwright.nsm_registry.manager.endpoints import LocalEndpoints

_SECONDS = 1.0  # for each replica

log = structlog.get_logger(__name__)

Attribute = str | datetime | Mapping[str, str]


class AskPolicy:
    """`mixers` are channels to replicas, the first that answers counts; `allow_outage` decides when none does."""

    def __init__(
        self, mixers: Sequence[Any], local: LocalEndpoints, forwarders: Sequence[str], *, allow_outage: bool
    ) -> None:
        self._stubs = [mixer_pb2_grpc.MixerStub(channel) for channel in mixers]
        self._local, self._forwarders, self._allow_outage = local, tuple(forwarders), allow_outage

    async def __call__(self, request: NetworkServiceRequest, exchange: Exchange, proceed: Proceed) -> Connection:
        """Ask for each request of a client, refreshes too, and go on if it is allowed."""
        connection = request.connection
        asked = not exchange.closing and exchange.caller is not None
        if asked and self._stubs and not from_forwarder(exchange, connection, self._forwarders, self._local):
            await self._ask(connection, exchange)
        return await proceed(request, exchange)

    async def _ask(self, connection: Connection, exchange: Exchange) -> None:
        assert exchange.caller is not None
        described = attributes(connection, exchange.caller.spiffe_id, exchange.clock.now())
        message = mixer_pb2.CheckRequest(attributes=compressed(described), deduplication_id=connection.id)
        failures = []
        for stub in self._stubs:
            try:
                answer = await stub.Check(message, timeout=min(_SECONDS, exchange.remaining()))
            except grpc.RpcError as failure:
                failures.append(f"{failure.code().name} {failure.details() or ''}".strip())
                continue
            status = answer.precondition.status
            if status.code == code_pb2.OK:
                return
            reason = status.message or code_pb2.Code.Name(status.code)
            log.info("nsmgr.policy.denied", caller=exchange.caller.spiffe_id, service=connection.network_service)
            raise PolicyDenied(f"{connection.network_service}: {reason}")
        if not self._allow_outage:
            raise PolicyUnavailable(
                f"no mixer says whether {connection.network_service} may be had: {'; '.join(failures)} "
                "(--on-policy-outage decides what happens then)"
            )
        log.warning("nsmgr.policy.outage_allowed", service=connection.network_service, reasons=failures)


def attributes(connection: Connection, principal: str, now: datetime) -> dict[str, Attribute]:
    """Describe a connection in mixer's vocabulary."""
    described: dict[str, Attribute] = {
        "context.protocol": "nsm",
        "context.reporter.kind": "inbound",
        "connection.id": connection.id,
        "request.time": now,
        "source.principal": principal,
        "source.labels": dict(connection.labels),
        "destination.service.name": connection.network_service.partition("@")[0],
        "destination.service.host": connection.network_service,
        "networkservice.name": connection.network_service,
        "networkservice.labels": dict(connection.labels),
    }
    if connection.network_service_endpoint_name:
        described["networkservice.endpoint"] = connection.network_service_endpoint_name
    if connection.mechanism.type:
        described["networkservice.mechanism"] = connection.mechanism.type
    parts = principal.split("/")  # spiffe://<trust domain>/ns/<namespace>/sa/<service account>
    if len(parts) == 7 and (parts[3], parts[5]) == ("ns", "sa"):
        described["source.namespace"], described["source.serviceAccount"] = parts[4], parts[6]
    return described


def compressed(described: Mapping[str, Attribute]) -> attributes_pb2.CompressedAttributes:
    """Encode attributes with the message's own words (mixer.md: word i of the message is the index -(i + 1))."""
    words: dict[str, int] = {}

    def index(word: str) -> int:
        return words.setdefault(word, -(len(words) + 1))

    message = attributes_pb2.CompressedAttributes()
    for name, value in described.items():
        key = index(name)
        match value:
            case str():
                message.strings[key] = index(value)
            case datetime():
                message.timestamps[key].FromDatetime(value)
            case _:
                entries = message.string_maps[key].entries
                for label, text in value.items():
                    entries[index(label)] = index(text)
    message.words.extend(words)
    return message
