"""One call at a time for each connection, and undo in one place.

A first Request that fails, however far it came, is closed through the rest of the chain under a deadline of its own.
A refresh that fails leaves the connection as it was: it goes on until its caller's token is over. Only a refusal by
policy ends it at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from meshwright.core import errors
from meshwright.nsm import metrics
from meshwright.nsm.chain import Exchange, Operation, Proceed
from meshwright.nsm.connections import Connections, ConnectionState
from meshwright.nsm.errors import PolicyDenied
from meshwright.nsm.wire import Connection, NetworkServiceRequest

Record = Callable[[ConnectionState], Awaitable[None]]

_UNDO_SECONDS = 10.0

log = structlog.get_logger(__name__)


async def no_record(state: ConnectionState) -> None:
    """Keep no journal."""


class Begin:
    """`record` is told each established, refreshed or closed connection before the caller is."""

    def __init__(self, connections: Connections, *, record: Record = no_record) -> None:
        self._connections, self._record = connections, record
        self._undoing: set[asyncio.Task[None]] = set()

    async def __call__(self, request: NetworkServiceRequest, exchange: Exchange, proceed: Proceed) -> Connection:
        """Wait for this connection's turn and run the rest of the chain on its state."""
        connection = request.connection
        while True:
            state = self._find(connection, exchange)
            if state is None:  # closing what isn't known succeeds
                return connection
            self._check_owner(state, exchange)
            async with state.lock:
                if state.closed:  # while this call waited
                    continue
                exchange.opened = state
                if exchange.closing:
                    await self._close(request, exchange, proceed)
                    return connection
                return await self._request(request, exchange, proceed)

    def _find(self, connection: Connection, exchange: Exchange) -> ConnectionState | None:
        state = self._connections.get(connection.id)
        if state is not None or exchange.closing or exchange.caller is None:
            return state
        caller_id = connection.path.path_segments[exchange.caller_index].id
        return self._connections.open(connection.id, exchange.caller.spiffe_id, caller_id)

    def _check_owner(self, state: ConnectionState, exchange: Exchange) -> None:
        if exchange.caller is not None and exchange.caller.spiffe_id != state.owner:
            raise errors.Forbidden(
                f"connection {state.id} belongs to {state.owner}, not to {exchange.caller.spiffe_id or 'you'}"
            )

    async def _request(self, request: NetworkServiceRequest, exchange: Exchange, proceed: Proceed) -> Connection:
        state = exchange.state
        try:
            answer = await proceed(request, exchange)
            accepted = Connection()
            accepted.CopyFrom(answer)
            state.accepted, state.expires = accepted, exchange.expires or state.expires
            await self._record(state)
        except BaseException as failure:
            if state.accepted is None or isinstance(failure, PolicyDenied):
                await self._undo(request, exchange, proceed)
            raise
        return accepted

    async def _close(self, request: NetworkServiceRequest, exchange: Exchange, proceed: Proceed) -> None:
        state = exchange.state
        await proceed(request, exchange)
        state.accepted = None
        self._connections.forget(state)
        await self._record(state)

    async def _undo(self, request: NetworkServiceRequest, exchange: Exchange, proceed: Proceed) -> None:
        """Close what was built so far; goes on even if the caller has hung up."""
        metrics.UNDONE.inc()
        closing = Exchange(
            Operation.CLOSE, exchange.clock, exchange.clock.monotonic() + _UNDO_SECONDS, opened=exchange.state
        )
        task = asyncio.create_task(self._undone(request, closing, proceed), name=f"undo {exchange.state.id}")
        self._undoing.add(task)
        task.add_done_callback(self._undoing.discard)
        await asyncio.shield(task)

    async def _undone(self, request: NetworkServiceRequest, closing: Exchange, proceed: Proceed) -> None:
        state = closing.state
        try:
            async with asyncio.timeout(_UNDO_SECONDS):
                await proceed(request, closing)
        except (errors.MeshwrightError, TimeoutError, OSError) as error:
            # The hops after this one let go when this hop's token is over.
            log.warning("nsm.undo.failed", connection=state.id, reason=str(error))
        state.accepted = None
        self._connections.forget(state)
        await self._record(state)
