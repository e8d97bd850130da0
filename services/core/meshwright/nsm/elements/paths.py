"""Enters this hop's segment on the way in and leaves it on the way out; first of every chain."""

from __future__ import annotations

from meshwright.nsm import path
from meshwright.nsm.chain import Exchange, Proceed
from meshwright.nsm.connections import Connections
from meshwright.nsm.wire import Connection, NetworkServiceRequest


class UpdatePath:
    """`name` is this hop's name in paths."""

    def __init__(self, name: str, connections: Connections) -> None:
        self._name, self._connections = name, connections

    async def __call__(self, request: NetworkServiceRequest, exchange: Exchange, proceed: Proceed) -> Connection:
        """Step forward, go on, step back. What this hop starts by itself is already at its own segment."""
        if exchange.caller is None:
            return await proceed(request, exchange)
        owner = exchange.caller.spiffe_id
        known = self._connections.known(owner, request.connection.id)
        before = exchange.caller_index = path.step_forward(request.connection, self._name, known=known)
        answer = Connection()
        answer.CopyFrom(await proceed(request, exchange))
        path.step_back(answer, before)
        return answer
