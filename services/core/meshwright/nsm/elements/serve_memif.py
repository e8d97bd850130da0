"""An endpoint's own element where the endpoint is a program with a memif socket: the socket's file, and addresses."""

from __future__ import annotations

from pathlib import Path

from meshwright.nsm import descriptors, mechanism, wire
from meshwright.nsm.chain import Exchange, Proceed
from meshwright.nsm.ipam import PointToPoint
from meshwright.nsm.wire import Connection, NetworkServiceRequest


class ServeMemif:
    """Answers with a MEMIF mechanism: the socket that a program serves at `path`, whose descriptor goes along."""

    def __init__(self, name: str, path: Path, addresses: PointToPoint) -> None:
        self._name, self._path, self._addresses = name, path, addresses

    async def __call__(self, request: NetworkServiceRequest, exchange: Exchange, proceed: Proceed) -> Connection:
        """Fill in this side; on Close give the addresses back."""
        state = exchange.state
        if exchange.closing:
            self._addresses.release(state.id)
            return await proceed(request, exchange)
        connection = request.connection
        mechanism.choose(None, [*request.mechanism_preferences, connection.mechanism], [mechanism.MEMIF])
        socket = state.held.keep(descriptors.socket_file(str(self._path)))
        self._addresses.assign(state.id, connection)
        connection.mechanism.CopyFrom(mechanism.memif(socket.inode))
        connection.network_service_endpoint_name = self._name
        connection.state = wire.UP
        exchange.answer.append(socket)
        return await proceed(request, exchange)
