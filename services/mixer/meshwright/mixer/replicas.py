"""Mixer replicas find one another in the store, so that a quota cell has one owner among them.

Each replica keeps its address under a lease; who dies is gone after the lease's time and its cells move.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from meshwright.core import clock as clocks
from meshwright.core import errors
from meshwright.core.health import Health
from meshwright.core.renewal import Backoff
from meshwright.core.store import Change, Entry, Store, follow
from meshwright.mixer import metrics

PREFIX = "/meshwright/mixer/replicas/"
PART = "replicas"

_log = structlog.get_logger(__name__)

SetReplicas = Callable[[str, Sequence[tuple[str, str]]], None]
"""Tells the engine its own id and the (id, address) of all."""


class Replicas:
    """`register` and `follow` run as tasks for the process's life."""

    def __init__(self, store: Store, own_id: str, tell: SetReplicas, health: Health, *, ttl_seconds: float) -> None:
        self._store, self._id, self._tell, self._health, self._ttl = store, own_id, tell, health, ttl_seconds
        self._known: dict[str, str] = {}

    async def register(self, address: str, clock: clocks.Clock | None = None) -> None:
        """Keep this replica's address in the store; again whenever the lease was lost."""
        clock = clock or clocks.SystemClock()
        backoff = Backoff(0.2, 5.0)
        while True:
            try:
                async with self._store.lease(self._ttl) as lease:
                    await self._store.put(PREFIX + self._id, address.encode(), lease=lease)
                    _log.info("replica_registered", replica=self._id, address=address)
                    backoff.reset()
                    await lease.lost.wait()
            except (errors.Unavailable, errors.DeadlineExceeded, errors.NotFound) as error:
                self._health.outage(PART, str(error))
            await clock.sleep(backoff.delay())

    async def follow(self) -> None:
        """Tell the engine of every replica that comes or goes."""
        await follow(self._store, PREFIX, self._all, self._one, health=self._health, part=PART)

    def _all(self, entries: Sequence[Entry], revision: int) -> None:
        self._known = {entry.key.removeprefix(PREFIX): entry.value.decode(errors="replace") for entry in entries}
        self._changed()

    def _one(self, change: Change) -> None:
        name = change.key.removeprefix(PREFIX)
        if change.value is None:
            self._known.pop(name, None)
        else:
            self._known[name] = change.value.decode(errors="replace")
        self._changed()

    def _changed(self) -> None:
        metrics.REPLICAS.set(len(self._known))
        self._tell(self._id, sorted(self._known.items()))
