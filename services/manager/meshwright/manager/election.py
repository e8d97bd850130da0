"""One of the manager's replicas does what only one should do: a key in the store, held by a lease.

One decision to know: being elected is a courtesy, not a lock. What the elected one does is safe when two do it for a
moment (commits compare and set, statuses say the same), so no fencing is needed where a lease was lost unnoticed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from meshwright.core import clock as clocks
from meshwright.core import errors
from meshwright.core.store import Store
from meshwright.manager import metrics

KEY = "/meshwright/manager/elected"

_TTL_SECONDS = 10.0
_LOOK_SECONDS = 2.0

_log = structlog.get_logger(__name__)


class Election:
    """`await Election(store, name).lead(work)`: runs `work` whenever and for as long as this replica is elected."""

    def __init__(self, store: Store, name: str, clock: clocks.Clock | None = None) -> None:
        self._store, self._name, self._clock = store, name, clock or clocks.SystemClock()

    async def lead(self, work: Callable[[], Awaitable[None]]) -> None:
        """Stand for election until cancelled."""
        metrics.ELECTED.set(0)
        while True:
            try:
                async with self._store.lease(_TTL_SECONDS) as lease:
                    await self._store.put(KEY, self._name.encode(), expect=0, lease=lease)
                    _log.info("elected")
                    metrics.ELECTED.set(1)
                    await _until(lease.lost, work)
            except errors.Conflict:
                pass  # another one is; it is looked at again soon
            except errors.MeshwrightError as error:
                _log.warning("election_failed", reason=str(error))
            finally:
                metrics.ELECTED.set(0)
            await self._clock.sleep(_LOOK_SECONDS)


async def _until(lost: asyncio.Event, work: Callable[[], Awaitable[None]]) -> None:
    """Run `work` until the lease is lost, or it fails."""
    working = asyncio.ensure_future(work())
    losing = asyncio.ensure_future(lost.wait())
    try:
        await asyncio.wait({working, losing}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
    finally:
        for task in (working, losing):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
