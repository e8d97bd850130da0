"""Envoy's secret discovery service, v3, on the agent's Unix socket; certificates for `default` and SPIFFE IDs, trust
for `ROOTCA`, `ALL` and the trust domain's ID.

One decision to know: a caller that isn't registered yet waits. Its stream stays open and is answered the moment the
registration arrives, so that a sidecar that started first warms up instead of failing. Names that can never be served
are refused at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import grpc
import structlog

from meshwright.api.envoy.service.discovery.v3 import discovery_pb2
from meshwright.api.envoy.service.secret.v3 import sds_pb2_grpc
from meshwright.citadel.agent import envoy_secrets
from meshwright.citadel.agent.session import Session, attested
from meshwright.citadel.agent.workloads import Workloads
from meshwright.core import errors

MAX_NAMES = 64
TYPE_URL = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

_WAITING_REQUESTS = 8  # of one stream; more aren't read until these are answered

_log = structlog.get_logger(__name__)


class SecretDiscoveryServicer(sds_pb2_grpc.SecretDiscoveryServiceServicer):
    """State-of-the-world streams and single fetches."""

    def __init__(self, workloads: Workloads) -> None:
        self._workloads = workloads

    async def StreamSecrets(self, request: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        """Answer each change of the names asked for, and each rotation of what they name."""
        async with attested(context, self._workloads) as session:
            stream = _Stream(session, self._workloads.trust_domain)
            reader = asyncio.create_task(stream.read(request), name=f"sds requests of {session.peer.pid}")
            try:
                async for response in stream.answer():
                    yield response
            finally:
                reader.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await reader

    async def FetchSecrets(self, request: Any, context: Any) -> Any:
        """Answer with what there is now; NOT_FOUND when none of the names has a secret yet."""
        names = check_names(request.resource_names, self._workloads.trust_domain)
        async with attested(context, self._workloads) as session:
            found = envoy_secrets.find(names, session, self._workloads.trust_domain)
        if not found:
            raise errors.NotFound("no identity issued (register the workload and ask again, or use StreamSecrets)")
        return _response(found, version=1, nonce="")

    async def DeltaSecrets(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Answer UNIMPLEMENTED: Envoy asks for it only when it is configured to."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this agent serves the state-of-the-world stream only")
        yield


class _Stream:
    """One stream's state: the names asked for, and what was sent last."""

    def __init__(self, session: Session, trust_domain: str) -> None:
        self._session, self._trust_domain = session, trust_domain
        self._requests: asyncio.Queue[Any] = asyncio.Queue(_WAITING_REQUESTS)
        self._names: tuple[str, ...] | None = None
        self._sent: Mapping[str, Any] = {}
        self._version = 0

    async def read(self, requests: AsyncIterator[Any]) -> None:
        """Take requests until the caller ends its side."""
        try:
            async for request in requests:
                await self._requests.put(request)
                self._session.wake()
        finally:
            self._session.end()

    async def answer(self) -> AsyncIterator[Any]:
        """Yield a response whenever there is something new to say."""
        waiting = False
        while not self._session.ended:
            must = self._take_requests()
            found = {} if self._names is None else envoy_secrets.find(self._names, self._session, self._trust_domain)
            if found and (must or found != self._sent):
                self._sent, self._version = found, self._version + 1
                yield _response(found, self._version, nonce=str(self._version))
            elif self._names is not None and not found and not waiting:
                waiting = True
                selectors = sorted(map(str, self._session.selectors))
                _log.info("workload_waits_for_identity", names=self._names, selectors=selectors)
            await self._session.changed()

    def _take_requests(self) -> bool:
        """Apply what was asked since the last look; return whether the names are new, which needs an answer."""
        must = False
        while not self._requests.empty():
            request = self._requests.get_nowait()
            if request.type_url and request.type_url != TYPE_URL:
                raise errors.ConfigError(f"{request.type_url[:200]!r}", field="type_url", remedy=TYPE_URL)
            if self._version and request.response_nonce != str(self._version):
                continue  # it answers an older response: a newer request is on its way
            if request.HasField("error_detail"):
                _log.warning(
                    "secret_refused", pid=self._session.peer.pid, names=self._names, error=request.error_detail.message
                )
            names = check_names(request.resource_names, self._trust_domain)
            must, self._names = must or names != self._names, names
        return must


def check_names(names: Sequence[str], trust_domain: str) -> tuple[str, ...]:
    """Return the names asked for, sorted and each once; raise ConfigError for those that can never be served.

    One certificate may not be asked for under two names in one request, nor one trust bundle.
    """
    if len(names) > MAX_NAMES:
        raise errors.ConfigError(f"{len(names)} names", field="resource_names", remedy=f"at most {MAX_NAMES}")
    unique = set(names)
    for name in unique:
        if not envoy_secrets.is_name(name, trust_domain):
            raise errors.ConfigError(
                f"{name[:200]!r}",
                field="resource_names",
                remedy=f"ask for default, ROOTCA, ALL, spiffe://{trust_domain} or a SPIFFE ID in it",
            )
    trust = {name for name in unique if envoy_secrets.is_trust(name, trust_domain)}
    if len(trust) > 1 or (envoy_secrets.DEFAULT in unique and len(unique - trust) > 1):
        raise errors.ConfigError(
            f"{sorted(unique)} name one secret twice", field="resource_names", remedy="ask for one name of each"
        )
    return tuple(sorted(unique))


def _response(found: Mapping[str, Any], version: int, nonce: str) -> Any:
    response = discovery_pb2.DiscoveryResponse(version_info=str(version), type_url=TYPE_URL, nonce=nonce)
    for secret in found.values():
        response.resources.add().Pack(secret)
    return response
