"""envoy.service.status.v3.ClientStatusDiscoveryService: what each client of an xDS server has, by what it acknowledged.

One decision to know: it answers from the state of the streams of this replica. What a client says it has counts, not
what was sent: a resource that was sent and not yet answered is the client's only when it says so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from meshwright.api.envoy.admin.v3.config_dump_shared_pb2 import ClientResourceStatus, UpdateFailureState
from meshwright.api.envoy.service.discovery.v3.discovery_pb2 import DiscoveryResponse
from meshwright.api.envoy.service.status.v3 import csds_pb2, csds_pb2_grpc
from meshwright.core import errors
from meshwright.manager.xds.streams import Connection, Streams
from meshwright.manager.xds.typestate import TypeState

SERVICE = "envoy.service.status.v3.ClientStatusDiscoveryService"

_WHOLE = 16  # clients whose resources are told with their contents
_MATCHERS = 64


class ClientStatus(csds_pb2_grpc.ClientStatusDiscoveryServiceServicer):
    """The servicer; `add_to` registers it. Only administrators should be allowed to call it."""

    def __init__(self, streams: Streams[Any]) -> None:
        self._streams = streams

    def add_to(self, server: Any) -> None:
        """Register the service."""
        csds_pb2_grpc.add_ClientStatusDiscoveryServiceServicer_to_server(self, server)

    async def FetchClientStatus(self, request: Any, context: Any) -> Any:
        """Answer once."""
        return self.status(request)

    async def StreamClientStatus(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        """Answer each request."""
        async for request in requests:
            yield self.status(request)

    def status(self, request: Any) -> Any:
        """Return a ClientStatusResponse for the clients whose node any of the matchers fits; all without matchers.

        Raises ConfigError for a matcher that isn't understood, or for contents of too many clients.
        """
        if len(request.node_matchers) > _MATCHERS:
            raise errors.Exhausted(f"{len(request.node_matchers)} node matchers: {_MATCHERS} are taken")
        matchers = [_matcher(one) for one in request.node_matchers]
        found = [
            connection
            for connection in self._streams.connections()
            if not matchers or any(fits(connection.node_id) for fits in matchers)
        ]
        contents = not request.exclude_resource_contents
        if contents and len(found) > _WHOLE:
            raise errors.ConfigError(
                f"contents of {len(found)} clients are too much for one answer ({_WHOLE} are told)",
                field="node_matchers",
                remedy="name fewer nodes, or set exclude_resource_contents",
            )
        return csds_pb2.ClientStatusResponse(config=[_client(one, contents=contents) for one in found])


def _matcher(matcher: Any) -> Callable[[str], bool]:
    wanted = matcher.node_id
    kind = wanted.WhichOneof("match_pattern")
    if matcher.node_metadatas or kind not in ("exact", "prefix", "suffix", "contains"):
        raise errors.ConfigError(
            "this matcher isn't understood",
            field="node_matchers",
            remedy="match node_id by exact, prefix, suffix or contains",
        )
    text: str = getattr(wanted, kind)
    if wanted.ignore_case:
        text = text.lower()

    def fits(node_id: str) -> bool:
        given = node_id.lower() if wanted.ignore_case else node_id
        match kind:
            case "exact":
                return given == text
            case "prefix":
                return given.startswith(text)
            case "suffix":
                return given.endswith(text)
        return text in given

    return fits


def _client(connection: Connection[Any], *, contents: bool) -> Any:
    return csds_pb2.ClientConfig(
        node=connection.node_message,
        generic_xds_configs=[
            one
            for state in connection.subscription.types.values()
            if state.asked
            for one in _resources(state, contents=contents)
        ],
    )


def _resources(state: TypeState, *, contents: bool) -> Iterator[Any]:
    for name, resource in sorted(state.sent.items()):
        told = csds_pb2.ClientConfig.GenericXdsConfig(type_url=state.type_url, name=name, version_info=resource.version)
        if not resource.version:
            told.client_status, told.config_status = ClientResourceStatus.DOES_NOT_EXIST, csds_pb2.NOT_SENT
        elif name in state.refused:
            told.client_status, told.config_status = ClientResourceStatus.NACKED, csds_pb2.ERROR
            words = state.refused[name] or "refused together with others"
            told.error_state.CopyFrom(UpdateFailureState(details=words, version_info=resource.version))
        elif state.is_under_way(name):
            told.client_status, told.config_status = ClientResourceStatus.REQUESTED, csds_pb2.STALE
        else:
            told.client_status, told.config_status = ClientResourceStatus.ACKED, csds_pb2.SYNCED
        if contents and resource.body:
            told.xds_config.CopyFrom(DiscoveryResponse.FromString(resource.body).resources[0])
        yield told
    for name in sorted(state.names - state.sent.keys()):
        yield csds_pb2.ClientConfig.GenericXdsConfig(
            type_url=state.type_url,
            name=name,
            client_status=ClientResourceStatus.REQUESTED,
            config_status=csds_pb2.NOT_SENT,
        )
