"""Ends registrations whose time is over; a name stays its owner's for a while after that.

One decision to know: nobody could refresh while the store or this service was away, so after such a time registrations
get some seconds before they are judged.
"""

from __future__ import annotations

import heapq
from datetime import datetime, timedelta

import structlog

from meshwright.core import errors
from meshwright.core.clock import Clock
from meshwright.nsm_registry.registry.directory import Registered
from meshwright.nsm_registry.registry.records import Records

_PERIOD_SECONDS = 0.5
_GRACE = timedelta(seconds=20)  # longer than clients need to come back: their retries are at most 2 s apart

log = structlog.get_logger(__name__)


class Expiry:
    """Run it as a task. `ownership` is how long a name stays reserved after its registration was over.

    Deadlines wait in a heap; a refresh adds a later one, and the earlier is passed over when its time comes.
    """

    def __init__(self, records: Records, clock: Clock, *, ownership: timedelta) -> None:
        self._records, self._clock, self._ownership = records, clock, ownership
        self._not_before = clock.now() + _GRACE
        self._deadlines: list[tuple[datetime, str]] = []
        records.directory.observers.append(self._observe)

    async def run(self) -> None:
        """Look twice a second until cancelled."""
        while True:
            await self._clock.sleep(_PERIOD_SECONDS)
            await self.sweep()

    async def sweep(self) -> None:
        """End what is over now."""
        now = self._clock.now()
        while self._not_before <= now and self._deadlines and self._deadlines[0][0] <= now:
            deadline, name = heapq.heappop(self._deadlines)
            entry = self._records.directory.get(name)
            if entry is None or self._deadline(entry) != deadline:
                continue
            try:
                await self._end(name, entry)
            except errors.Conflict:  # refreshed or removed by another replica
                await self._records.refetch(name)
            except errors.MeshwrightError as error:
                log.warning("registry.expiry.postponed", reason=str(error))
                self._not_before = now + _GRACE
                heapq.heappush(self._deadlines, (deadline, name))

    async def _end(self, name: str, entry: Registered) -> None:
        if entry.gone:
            await self._records.remove(name)
            return
        await self._records.put(entry.message, entry.owner, gone=True)
        log.info("registry.endpoint.expired", endpoint=name)

    def _observe(self, name: str, entry: Registered) -> None:
        deadline = self._deadline(entry)
        if deadline is not None:
            heapq.heappush(self._deadlines, (deadline, name))

    def _deadline(self, entry: Registered) -> datetime | None:
        expires = entry.expires
        if expires is None:
            return None
        return expires + self._ownership if entry.gone else expires
