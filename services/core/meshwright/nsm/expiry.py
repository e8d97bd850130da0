"""Closes the connections whose callers stopped refreshing them.

One decision to know: expiry is the signed `exp` of the caller's token, whatever the call's deadline was. A Close that
fails (the next hop is away) is tried again; after a while this hop forgets it, because the next one counts for itself.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from meshwright.core import errors
from meshwright.core.clock import Clock
from meshwright.nsm import metrics
from meshwright.nsm.chain import Chain, Exchange, Operation
from meshwright.nsm.connections import Connections, ConnectionState
from meshwright.nsm.wire import Connection, NetworkServiceRequest

_PERIOD_SECONDS = 0.5
_CLOSE_SECONDS = 5.0
_AT_ONCE = 32  # closes under way: after a long stop everything is over at once
_FORGET_AFTER = timedelta(seconds=60)

log = structlog.get_logger(__name__)


class Expiry:
    """Run it as a task beside the server."""

    def __init__(self, chain: Chain, connections: Connections, clock: Clock) -> None:
        self._chain, self._connections, self._clock = chain, connections, clock

    async def run(self) -> None:
        """Look twice a second until cancelled."""
        while True:
            await self._clock.sleep(_PERIOD_SECONDS)
            await self.sweep()

    async def sweep(self) -> None:
        """Close what is over now."""
        turns = asyncio.Semaphore(_AT_ONCE)
        over = self._connections.expired(self._clock.now())
        # One that is locked is being refreshed or closed at this moment.
        await asyncio.gather(*(self._close(state, turns) for state in over if not state.lock.locked()))

    async def _close(self, state: ConnectionState, turns: asyncio.Semaphore) -> None:
        try:
            async with turns:
                await close(self._chain, state, self._clock, seconds=_CLOSE_SECONDS)
        except errors.MeshwrightError as error:
            assert state.expires is not None
            gave_up = self._clock.now() - state.expires > _FORGET_AFTER
            log.warning("nsm.expiry.close_failed", connection=state.id, reason=str(error), forgotten=gave_up)
            if gave_up:
                self._connections.forget(state)
        else:
            metrics.EXPIRED.inc()
            log.info("nsm.connection.expired", connection=state.id)


async def close(chain: Chain, state: ConnectionState, clock: Clock, *, seconds: float) -> None:
    """Close a connection because this hop wants it closed."""
    connection = Connection()
    if state.accepted is not None:
        connection.CopyFrom(state.accepted)
    connection.id = state.id
    exchange = Exchange(Operation.CLOSE, clock, clock.monotonic() + seconds)
    await chain(NetworkServiceRequest(connection=connection), exchange)
