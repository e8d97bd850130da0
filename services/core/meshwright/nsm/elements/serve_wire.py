"""An endpoint's own element where the endpoint is on the wire: addresses and VLAN, nothing for the forwarder to do."""

from __future__ import annotations

from meshwright.nsm import mechanism, wire
from meshwright.nsm.chain import Exchange, Proceed
from meshwright.nsm.ipam import PointToPoint
from meshwright.nsm.wire import Connection, NetworkServiceRequest


class ServeWire:
    """Answers with a NOOP mechanism, addresses from `addresses`, and the VLAN on which they are (0: none)."""

    def __init__(self, name: str, vlan: int, addresses: PointToPoint) -> None:
        self._name, self._vlan, self._addresses = name, vlan, addresses

    async def __call__(self, request: NetworkServiceRequest, exchange: Exchange, proceed: Proceed) -> Connection:
        """Fill in this side; on Close give the addresses back."""
        state = exchange.state
        if exchange.closing:
            self._addresses.release(state.id)
            return await proceed(request, exchange)
        connection = request.connection
        mechanism.choose(None, [*request.mechanism_preferences, connection.mechanism], [mechanism.NOOP])
        self._addresses.assign(state.id, connection)
        connection.context.ethernet_context.vlan_tag = self._vlan
        connection.mechanism.CopyFrom(mechanism.noop())
        connection.network_service_endpoint_name = self._name
        connection.state = wire.UP
        return await proceed(request, exchange)
