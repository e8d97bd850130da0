"""The xDS services of envoy.service.*.v3: aggregated and one for each type, state of the world and increments.

One decision to know: there is one protocol (`subscription`) and any source of resources behind it. Responses leave as
bytes that all clients share; gRPC reads and serialises nothing here.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import grpc
import structlog

from meshwright.core import errors
from meshwright.core.grpc import peer_id
from meshwright.manager import metrics
from meshwright.manager.xds import types
from meshwright.manager.xds.hub import Hub, MeshSource
from meshwright.manager.xds.source import Client
from meshwright.manager.xds.stream import Stream
from meshwright.manager.xds.streams import Connection, Streams
from meshwright.manager.xds.subscription import Subscription

_log = structlog.get_logger(__name__)

C = TypeVar("C", bound=Client)

_MAX_NODE = 16 << 10  # bytes

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"

SERVICES: dict[str, tuple[str, str]] = {
    SERVICE: ("AggregatedResources", ""),
    "envoy.service.cluster.v3.ClusterDiscoveryService": ("Clusters", types.CLUSTER),
    "envoy.service.endpoint.v3.EndpointDiscoveryService": ("Endpoints", types.ENDPOINT),
    "envoy.service.listener.v3.ListenerDiscoveryService": ("Listeners", types.LISTENER),
    "envoy.service.route.v3.RouteDiscoveryService": ("Routes", types.ROUTE),
    "envoy.service.secret.v3.SecretDiscoveryService": ("Secrets", types.SECRET),
    "envoy.service.extension.v3.ExtensionConfigDiscoveryService": ("ExtensionConfigs", types.EXTENSION),
}
"""Full names, the methods' names after Stream and Delta, and the only type of each; the aggregated one has all."""


class Source(Protocol[C]):
    """Where resources come from."""

    @property
    def streams(self) -> Streams[C]:
        """The clients that are connected."""

    def admit(self, node: Any, caller: str | None) -> C:
        """Let a client in, or raise ConfigError or Forbidden.

        `node` is how it introduces itself (envoy.config.core.v3.Node), `caller` its SPIFFE ID, None in plain text.
        """

    def settled(self, connection: Connection[C]) -> None:
        """Take that a client may have acknowledged something."""


class XdsServer(Generic[C]):
    """The servicer of all xDS services; `add_to` registers it."""

    def __init__(self, source: Source[C]) -> None:
        self._source = source

    def add_to(self, server: Any) -> None:
        """Register the services on a server, with requests and responses passed through as bytes."""
        for service, (name, only) in SERVICES.items():
            methods: dict[str, Any] = {
                f"{prefix}{name}": grpc.stream_stream_rpc_method_handler(_handler(self, delta=delta, only=only))
                for prefix, delta in (("Stream", False), ("Delta", True))
            }
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
            server.add_registered_method_handlers(service, methods)

    async def serve(self, context: Any, *, delta: bool, only: str) -> None:
        """Serve one client until it leaves or may no longer be served."""
        caller, node_id, streams = peer_id(context), "", self._source.streams
        try:
            raw = await Stream.first(context)
            node, rest = streams.requests.first(raw, delta=delta)
            node_id = node.id
            client = self._source.admit(node, caller)
            connection = Connection(client, Subscription(streams.responses), _bounded(node))
            stream = Stream(context, connection, streams.requests, partial(self._source.settled, connection))
            with streams.joined(connection):
                await stream.run(rest, delta=delta, only=only)
        except errors.Forbidden as error:
            metrics.DENIED.inc()
            _log.warning("proxy_denied", node=node_id[:200], caller=caller, reason=str(error))
            raise


class DiscoveryServer(XdsServer[Any]):
    """The services with a mesh behind them."""

    def __init__(self, hub: Hub, trust_domain: str) -> None:
        super().__init__(MeshSource(hub, trust_domain))


def _bounded(node: Any) -> Any:
    """Keep what a client says of itself, or of one that says a lot its names alone."""
    return node if node.ByteSize() <= _MAX_NODE else type(node)(id=node.id, cluster=node.cluster)


def _handler(server: XdsServer[Any], *, delta: bool, only: str) -> Any:
    async def handle(_requests: Any, context: Any) -> None:
        await server.serve(context, delta=delta, only=only)

    return handle
