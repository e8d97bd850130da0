"""Chooses the next hop: a client's connection goes to a forwarder, a forwarder's to the endpoint that it names.

One decision to know: only an allowed forwarder reaches an endpoint directly. In the original any caller that names an
endpoint does, past forwarder and policy.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshwright.nsm import allow, matching
from meshwright.nsm.chain import Exchange, NextHop, Proceed
from meshwright.nsm.errors import NoEndpoint, NoForwarder
from meshwright.nsm.wire import Connection, NetworkServiceRequest
from meshwright.nsm_registry.manager.endpoints import FORWARDER, LocalEndpoints
from meshwright.nsm_registry.manager.finding import Finder

_WAIT_SECONDS = 5.0  # for a forwarder or an endpoint that is just restarting


def from_forwarder(exchange: Exchange, connection: Connection, allowed: Sequence[str], local: LocalEndpoints) -> bool:
    """Return whether the caller is a forwarder of this node, that came through this manager before."""
    index = connection.path.index
    if index < 2 or connection.path.path_segments[index - 2].name != connection.path.path_segments[index].name:
        return False
    if exchange.caller is None:
        return False
    if not exchange.caller.spiffe_id:  # plain text on loopback: the name is all there is
        known = local.get(connection.path.path_segments[index - 1].name)
        return known is not None and FORWARDER in known.message.network_service_names
    return allow.allows(allowed, exchange.caller.spiffe_id)


class Choose:
    """Sets the exchange's next hops; a connection that is up stays where it is."""

    def __init__(self, local: LocalEndpoints, finder: Finder, forwarders: Sequence[str]) -> None:
        self._local, self._finder, self._allowed = local, finder, tuple(forwarders)
        self._turn = 0

    async def __call__(self, request: NetworkServiceRequest, exchange: Exchange, proceed: Proceed) -> Connection:
        """Choose, and go on."""
        if exchange.closing:
            return await proceed(request, exchange)
        state, connection = exchange.state, request.connection
        if exchange.caller is None:  # a resync: where it was
            exchange.next_hops = [await self._local.resolve(state.next_hop, exchange.remaining())]
        elif from_forwarder(exchange, connection, self._allowed, self._local):
            exchange.next_hops = [await self._endpoint(connection, exchange)]
        else:
            await self._forwarders(connection, exchange)
        return await proceed(request, exchange)

    async def _endpoint(self, connection: Connection, exchange: Exchange) -> NextHop:
        name = connection.network_service_endpoint_name
        if not name:
            raise NoEndpoint("the forwarder named no endpoint")
        try:
            return await self._local.resolve(name, min(_WAIT_SECONDS, exchange.remaining() / 2))
        except NoForwarder as error:
            raise NoEndpoint(f"endpoint {name} isn't on this node") from error

    async def _forwarders(self, connection: Connection, exchange: Exchange) -> None:
        state = exchange.state
        patience = min(_WAIT_SECONDS, exchange.remaining() / 2)
        if state.accepted is not None:  # its interfaces are that forwarder's
            exchange.next_hops = [await self._local.resolve(state.next_hop, patience)]
            return
        service = await self._finder.service(connection.network_service)
        labels = matching.forwarder_labels(service, connection.labels)
        found = await self._local.wait_for_forwarders(labels, patience)
        if not found:
            wanted = ", ".join(f"{key}={value}" for key, value in sorted(labels.items())) or "any"
            raise NoForwarder(f"no forwarder with labels {wanted} is registered on this node (is it ready?)")
        self._turn += 1
        start = self._turn % len(found)
        exchange.next_hops = [known.peer for known in (*found[start:], *found[:start])]
