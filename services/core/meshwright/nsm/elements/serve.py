"""An endpoint's own element: answers with what the endpoint offers, and a pair of addresses."""

from __future__ import annotations

from meshwright.nsm import mechanism, wire
from meshwright.nsm.chain import Exchange, Proceed
from meshwright.nsm.ipam import PointToPoint
from meshwright.nsm.offers import Offer
from meshwright.nsm.wire import Connection, NetworkServiceRequest


class Serve:
    """Answers with the mechanism that `offer` makes and addresses from `addresses`."""

    def __init__(self, name: str, addresses: PointToPoint, offer: Offer) -> None:
        self._name, self._addresses, self._offer = name, addresses, offer

    async def __call__(self, request: NetworkServiceRequest, exchange: Exchange, proceed: Proceed) -> Connection:
        """Fill in this side; on Close give the addresses back."""
        state = exchange.state
        if exchange.closing:
            self._addresses.release(state.id)
            return await proceed(request, exchange)
        connection = request.connection
        wishes = [*request.mechanism_preferences, connection.mechanism]
        wish = mechanism.choose(None, wishes, [self._offer.kind])
        offered, descriptor = self._offer.make(wish, connection, state.id)
        if descriptor is not None:
            exchange.answer.append(state.held.keep(descriptor))
        self._addresses.assign(state.id, connection)
        connection.mechanism.CopyFrom(offered)
        connection.network_service_endpoint_name = self._name
        connection.state = wire.UP
        return await proceed(request, exchange)
