"""envoy.service.discovery.v3.AggregatedDiscoveryService: one stream for each proxy, state of the world.

One decision to know: responses leave as bytes that the subscription put together; gRPC serialises nothing here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import grpc
import structlog

from meshwright.api.envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest
from meshwright.core import errors
from meshwright.core.grpc import peer_id
from meshwright.manager import metrics
from meshwright.manager.xds import node as nodes
from meshwright.manager.xds import types
from meshwright.manager.xds.hub import Connection, Hub
from meshwright.manager.xds.subscription import Request

_log = structlog.get_logger(__name__)

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"

_FIRST_REQUEST_SECONDS = 10.0
_INBOX = 16  # requests that wait for their stream; more wait in the transport, which slows down their sender only
_MAX_NAMES = 200_000
_MAX_ERROR = 2_000  # characters of a proxy's complaint that are kept


class DiscoveryServer:
    """The servicer; `add_to` registers it."""

    def __init__(self, hub: Hub, trust_domain: str) -> None:
        self._hub, self._trust_domain = hub, trust_domain

    def add_to(self, server: Any) -> None:
        """Register the service on a server, with responses passed through as bytes."""
        handler = grpc.stream_stream_rpc_method_handler(
            self.stream, request_deserializer=DiscoveryRequest.FromString, response_serializer=bytes
        )
        methods = {"StreamAggregatedResources": handler}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        server.add_registered_method_handlers(SERVICE, methods)

    async def stream(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[bytes]:
        """Serve one proxy until it leaves or may no longer be served."""
        try:
            # Not `wait_for`, which in Python 3.11 can lose a cancellation that comes with the answer.
            async with asyncio.timeout(_FIRST_REQUEST_SECONDS):
                first = await anext(requests)
        except (StopAsyncIteration, TimeoutError):
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "no request came: name the node in the first one")
        try:
            node_id, caller = first.node.id, peer_id(context)
            connection = Connection(node_id, nodes.parse(node_id), caller or "")
            nodes.authorize(connection.node, caller, self._trust_domain, None)
            with self._hub.join(connection):
                async for response in self._serve(connection, caller, first, requests):
                    yield response
        except errors.Forbidden as error:
            metrics.DENIED.inc()
            _log.warning("proxy_denied", node=first.node.id[:200], caller=peer_id(context), reason=str(error))
            raise

    async def _serve(
        self, connection: Connection, caller: str | None, first: Any, requests: AsyncIterator[Any]
    ) -> AsyncIterator[bytes]:
        inbox = _Inbox(connection.bell, first)
        reader = asyncio.create_task(inbox.fill(requests), name=f"requests of {connection.node_id}")
        try:
            while True:
                await connection.bell.wait()
                connection.bell.clear()
                for request in inbox.take():
                    self._take(connection, _domain(request))
                if inbox.ended:
                    return
                for response in self._due(connection, caller):
                    yield response
        finally:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader

    def _due(self, connection: Connection, caller: str | None) -> list[bytes]:
        snapshot, node = self._hub.latest, connection.node
        if snapshot is None:
            return []
        # Asked at every snapshot: an account that was changed or taken away ends the stream of the old identity.
        nodes.authorize(node, caller, self._trust_domain, snapshot.service_account(*node))
        view = snapshot.view(*node)
        if view is None:
            if connection.subscription.acknowledged_revision:
                raise errors.NotFound(f"workload {node.workload} of namespace {node.namespace} was deleted")
            return []  # a proxy that starts before its WorkloadEntry is applied waits for it
        connection.subscription.offer(view)
        responses = list(connection.subscription.pending())
        for type_url, before, revision, acknowledged in connection.subscription.settled():
            self._hub.convergence.settled(type_url, before, revision, acknowledged)
        for response in responses:
            metrics.RESPONSES.inc()
            metrics.RESPONSE_BYTES.inc(len(response))
        return responses

    @staticmethod
    def _take(connection: Connection, request: Request) -> None:
        if request.error:
            metrics.REFUSALS.labels(types.short(request.type_url)).inc()
            _log.warning("resource_refused", node=connection.node_id, type=request.type_url, reason=request.error)
        connection.subscription.request(request)


class _Inbox:
    """Requests on their way from the transport to the stream's loop."""

    def __init__(self, bell: asyncio.Event, first: Any) -> None:
        self._bell, self._waiting = bell, deque([first])
        self._space = asyncio.Event()
        self.ended = False

    async def fill(self, requests: AsyncIterator[Any]) -> None:
        """Read requests until the proxy has no more."""
        try:
            async for request in requests:
                while len(self._waiting) >= _INBOX:
                    self._space.clear()
                    await self._space.wait()
                self._waiting.append(request)
                self._bell.set()
        finally:
            self.ended = True
            self._bell.set()

    def take(self) -> list[Any]:
        """Return what came, in order."""
        taken = list(self._waiting)
        self._waiting.clear()
        self._space.set()
        return taken


def _domain(request: Any) -> Request:
    if len(request.resource_names) > _MAX_NAMES:
        raise errors.Exhausted(f"{len(request.resource_names)} resource names in one request: {_MAX_NAMES} are taken")
    return Request(
        request.type_url,
        frozenset(request.resource_names),
        request.version_info,
        request.response_nonce,
        request.error_detail.message[:_MAX_ERROR]
        or ("refused without a reason" if request.HasField("error_detail") else ""),
    )
