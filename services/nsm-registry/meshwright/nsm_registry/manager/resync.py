"""Tells a forwarder that came back which connections it has, with the descriptors that this manager kept for it.

One decision to know: traffic doesn't wait for this, since the kernel forwards on while the forwarder is away; what
comes back is the forwarder's ability to change and close its connections.
"""

from __future__ import annotations

import asyncio

import structlog

from meshwright.core import errors
from meshwright.core.clock import Clock
from meshwright.nsm import mechanism
from meshwright.nsm.chain import Chain, Exchange, Operation
from meshwright.nsm.connections import Connections, ConnectionState
from meshwright.nsm.wire import Connection, NetworkServiceRequest

_SECONDS = 10.0
_AT_ONCE = 8  # replays under way

log = structlog.get_logger(__name__)


class Resync:
    """Run it as a task; `joined` may be called from anywhere in the loop."""

    def __init__(self, chain: Chain, connections: Connections, clock: Clock) -> None:
        self._chain, self._connections, self._clock = chain, connections, clock
        self._names: asyncio.Queue[str] = asyncio.Queue()

    def joined(self, name: str) -> None:
        """Note that the endpoint or forwarder `name` has come (back)."""
        if any(state.next_hop == name for state in self._connections):
            self._names.put_nowait(name)

    async def run(self) -> None:
        """Replay connections until cancelled."""
        while True:
            name = await self._names.get()
            waiting = [state for state in self._connections if state.next_hop == name and _complete(state)]
            turns = asyncio.Semaphore(_AT_ONCE)
            results = await asyncio.gather(*(self._replay(state, turns) for state in waiting))
            log.info("nsmgr.resync.done", forwarder=name, connections=len(waiting), failed=results.count(False))

    async def _replay(self, state: ConnectionState, turns: asyncio.Semaphore) -> bool:
        async with turns:
            connection = Connection()
            if state.accepted is None:  # closed while this one waited
                return True
            connection.CopyFrom(state.accepted)
            exchange = Exchange(Operation.REQUEST, self._clock, self._clock.monotonic() + _SECONDS)
            try:
                await self._chain(NetworkServiceRequest(connection=connection), exchange)
            except errors.MeshwrightError as error:  # its client's next refresh repairs it
                log.warning("nsmgr.resync.failed", connection=state.id, reason=str(error))
                return False
            return True


def _complete(state: ConnectionState) -> bool:
    """Return whether this manager holds the client's namespace, without which there is nothing to replay."""
    if state.accepted is None:
        return False
    inode = mechanism.inode(state.accepted.mechanism)
    return inode is not None and state.held.get(inode) is not None
