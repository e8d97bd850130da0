"""An endpoint's own element: its network namespace as the mechanism, and a pair of addresses."""

from __future__ import annotations

from meshwright.nsm import mechanism, wire
from meshwright.nsm.chain import Exchange, Proceed
from meshwright.nsm.descriptors import Descriptor
from meshwright.nsm.ipam import PointToPoint
from meshwright.nsm.wire import Connection, NetworkServiceRequest


class ServeKernel:
    """Answers with a KERNEL mechanism in `namespace` and addresses from `addresses`."""

    def __init__(self, name: str, namespace: Descriptor, addresses: PointToPoint) -> None:
        self._name, self._namespace, self._addresses = name, namespace, addresses

    async def __call__(self, request: NetworkServiceRequest, exchange: Exchange, proceed: Proceed) -> Connection:
        """Fill in this side; on Close give the addresses back."""
        state = exchange.state
        if exchange.closing:
            self._addresses.release(state.id)
            return await proceed(request, exchange)
        connection = request.connection
        wish = mechanism.choose(None, [*request.mechanism_preferences, connection.mechanism], [mechanism.KERNEL])
        interface = mechanism.interface_name(wish, connection.network_service, state.id)
        self._addresses.assign(state.id, connection)
        connection.mechanism.CopyFrom(mechanism.kernel(self._namespace.inode, interface))
        connection.network_service_endpoint_name = self._name
        connection.state = wire.UP
        exchange.answer.append(state.held.keep(self._namespace.duplicate()))
        return await proceed(request, exchange)
