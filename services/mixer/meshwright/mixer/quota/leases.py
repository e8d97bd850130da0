"""Leases slices of quotas for the engine: what its cells want is taken from the store by compare-and-set.

One decision to know: times are read before the store is asked, on both clocks, so that however long the answer takes a
slice is never used for longer than the store counts it.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import uuid
from collections import OrderedDict
from collections.abc import Sequence

import structlog

from meshwright.core import clock as clocks
from meshwright.core import errors
from meshwright.core.health import Health
from meshwright.core.store import Store
from meshwright.dataplane.policy import Engine, Lease, Want
from meshwright.mixer.quota.ledger import Granted, Ledger, Used

PREFIX = "/meshwright/mixer/quota/"
PART = "quota"
_ATTEMPTS = 8  # of a compare-and-set that others win
_IN_FLIGHT = 64
_TIMEOUT = 1.0
_KNOWN = 10_000  # cells whose last ledger is remembered, so that the next lease is one call
_DRAIN_SECONDS = 0.2
_SWEEP_SECONDS = 60.0
_MS = 1_000_000  # nanoseconds

_log = structlog.get_logger(__name__)


class QuotaLeases:
    """`run` and `sweep` are tasks for the process's life."""

    def __init__(
        self, store: Store, engine: Engine, replica: str, health: Health, clock: clocks.Clock | None = None
    ) -> None:
        self._store, self._engine, self._health = store, engine, health
        self._clock = clock or clocks.SystemClock()
        # A replica that starts again under its name doesn't know of its slices of before.
        self._holder = f"{replica}-{uuid.uuid4().hex[:8]}"
        self._known: OrderedDict[str, tuple[int, bytes | None]] = OrderedDict()
        self._gate = asyncio.Semaphore(_IN_FLIGHT)

    async def run(self) -> None:
        """Answer what the engine wants."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                for want in await asyncio.to_thread(self._engine.wanted_leases, _DRAIN_SECONDS):
                    await self._gate.acquire()
                    task = tasks.create_task(self._answer(want), name="lease quota")
                    task.add_done_callback(lambda _: self._gate.release())

    async def sweep(self) -> None:
        """Delete the ledgers in which nothing counts any more; every replica does, and none minds."""
        while True:
            await self._clock.sleep(_SWEEP_SECONDS * random.uniform(0.5, 1.5))
            try:
                await self.sweep_once()
            except errors.MeshwrightError as error:
                _log.info("quota_sweep_failed", reason=str(error))

    async def sweep_once(self) -> None:
        """Look at every ledger once."""
        entries, _ = await self._store.list(PREFIX)
        for entry in entries:
            if _read(entry.key, entry.value).is_over(self._now()):
                try:
                    await self._store.delete(entry.key, expect=entry.revision)
                except errors.Conflict:
                    continue  # used again

    async def _answer(self, want: Want) -> None:
        lease: Lease | None = None
        try:
            lease = await self._lease(want)
            self._health.set(PART, True)
        except errors.MeshwrightError as error:
            self._health.degrade(PART, f"distributed quotas are held by each replica alone: {error}")
        finally:
            self._engine.leased(want.cell, want.id, lease)

    async def _lease(self, want: Want) -> Lease:
        key = PREFIX + hashlib.sha256(want.cell).hexdigest()[:40]
        for attempt in range(_ATTEMPTS):
            if key not in self._known:
                found = await self._store.get(key, timeout=_TIMEOUT)
                self._known[key] = (found.revision, found.value) if found else (0, None)
            revision, value = self._known.pop(key)
            began, now = self._engine.now(), self._now()
            ledger = _read(key, value)
            ledger.settle(self._holder, _used(want, began, now))
            granted = ledger.lease(
                self._holder, want.id, want.amount,
                limit=want.max, window=max(1, want.window // _MS), life=want.life // _MS,
                is_fixed=want.is_fixed, now=now,
            )  # fmt: skip
            value = ledger.value()
            try:
                # Forgotten until it is certain what the store has.
                revision = await self._store.put(key, value, expect=revision, timeout=_TIMEOUT)
            except errors.Conflict:
                await self._clock.sleep(random.uniform(0, 0.002 * 2**attempt))
                continue
            self._known[key] = (revision, value)
            while len(self._known) > _KNOWN:
                self._known.popitem(last=False)
            return _lease(granted, began, now)
        raise errors.Unavailable(f"others changed a quota {_ATTEMPTS} times while it was leased")

    def _now(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


def _used(want: Want, began: int, now: int) -> Sequence[Used]:
    return [Used(id_, used, now + -(-(counted - began) // _MS)) for id_, used, counted in want.settled]


def _lease(granted: Granted, began: int, now: int) -> Lease:
    """In the engine's time."""

    def at(moment: int) -> int:
        return max(0, began + (moment - now) * _MS)

    return Lease(granted.amount, at(granted.until), at(granted.counted), at(granted.more_at))


def _read(key: str, value: bytes | None) -> Ledger:
    try:
        return Ledger.read(value)
    except (ValueError, TypeError, KeyError) as error:
        _log.warning("quota_unreadable", key=key, reason=str(error))
        return Ledger()
