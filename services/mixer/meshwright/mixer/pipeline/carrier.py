"""Carries batches from the engine to the adapters in Python, and their answer back.

One decision to know: one batch at a time, taken in a thread. The engine holds what follows in its queue, and lets a
handler that refuses a batch rest before it gives it the next.
"""

from __future__ import annotations

import asyncio

from meshwright.api.mixer.v1 import record_pb2
from meshwright.core import clock as clocks
from meshwright.core.health import Health
from meshwright.dataplane.policy import Engine
from meshwright.mixer import metrics
from meshwright.mixer.pipeline.dispatch import Arrival, Dispatcher

TAKE_SECONDS = 0.5
WATCH_SECONDS = 0.5


class Carrier:
    """`run` delivers, `watch` tells of what is wrong on the way; both for as long as their tasks live."""

    def __init__(
        self, engine: Engine, dispatcher: Dispatcher, health: Health, clock: clocks.Clock | None = None
    ) -> None:
        self._engine, self._dispatcher, self._health = engine, dispatcher, health
        self._clock = clock or clocks.SystemClock()
        self._counted: dict[str, tuple[int, int]] = {}
        self._told: set[str] = set()

    async def run(self) -> None:
        """Give batches to the dispatcher."""
        while True:
            batch = await asyncio.to_thread(self._engine.take_records, TAKE_SECONDS)
            if batch is not None:
                arrivals = [Arrival(record_pb2.Record.FromString(data), marked) for data, marked in batch.records]
                batch.settle(sorted(await self._dispatcher.deliver(arrivals)))

    async def watch(self) -> None:
        """Keep health and metrics equal to what the engine knows."""
        while True:
            self.look()
            await self._clock.sleep(WATCH_SECONDS)

    def look(self) -> None:
        """Look once."""
        faults = self._engine.record_faults()
        for part, reason in faults.items():
            self._health.degrade(part, reason[:300])
        for part in self._told - set(faults):
            self._health.set(part, True)
        self._told = set(faults)
        for name, adapter, handled, failed in self._engine.record_handlers():
            before = self._counted.get(name, (0, 0))
            metrics.ENTRIES_HANDLED.labels(name, adapter).inc(handled - before[0])
            metrics.BATCHES_FAILED.labels(name, adapter).inc(failed - before[1])
            self._counted[name] = (handled, failed)
