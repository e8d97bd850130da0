"""Moves records from the engine into the work queue; a record leaves this process's memory only when it is stored.

One decision to know: nothing new is drained while a batch isn't stored. So an outage of the queue fills the engine's
own bounded queue, which then pushes back on the callers; memory stays bounded without dropping anything here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from meshwright.api.mixer.v1 import record_pb2
from meshwright.core import clock as clocks
from meshwright.core import errors
from meshwright.core.bus import Bus
from meshwright.core.health import Health
from meshwright.core.renewal import Backoff
from meshwright.mixer import metrics
from meshwright.mixer.pipeline.stream import PART, RECORD_BYTES, REPUBLISHED, SUBJECT

BATCH = 256
IN_FLIGHT = 64
"""Publications that wait for their acknowledgement at once."""
DRAIN_SECONDS = 0.2
LATE_SECONDS = 60.0
"""After so long an attempt is marked: the queue tells repetitions for two minutes only."""

Drain = Callable[[int, float], Sequence[bytes]]
"""Takes up to so many records out of the engine, waiting up to so many seconds for the first. Blocks."""

_log = structlog.get_logger(__name__)


class Pump:
    """`run` until told to stop, then `finish` what is left; `stored` counts what the queue has taken."""

    def __init__(self, drain: Drain, bus: Bus, health: Health, clock: clocks.Clock | None = None) -> None:
        self._drain, self._bus, self._health = drain, bus, health
        self._clock = clock or clocks.SystemClock()
        self._gate = asyncio.Semaphore(IN_FLIGHT)
        self.stored = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Store records until `stop` is set and the batch under way is stored."""
        while not stop.is_set():
            await self.store(await asyncio.to_thread(self._drain, BATCH, DRAIN_SECONDS))

    async def finish(self) -> None:
        """Store what the engine still has; the caller sets the deadline."""
        while batch := await asyncio.to_thread(self._drain, BATCH, 0.0):
            await self.store(batch)

    async def store(self, batch: Sequence[bytes]) -> None:
        """Return when the queue has every record of the batch."""
        async with asyncio.TaskGroup() as tasks:
            for data in batch:
                await self._gate.acquire()
                task = tasks.create_task(self._store_one(data), name="store record")
                task.add_done_callback(lambda _: self._gate.release())

    async def _store_one(self, data: bytes) -> None:
        if len(data) > RECORD_BYTES:
            metrics.RECORDS_TOO_LARGE.inc()
            _log.warning("record_too_large", bytes=len(data), limit=RECORD_BYTES)
            return
        record = record_pb2.Record.FromString(data)
        headers = {}
        if record.trace_id and record.span_id:
            headers["traceparent"] = f"00-{record.trace_id}-{record.span_id}-01"
        backoff, began = Backoff(0.1, 2.0), self._clock.monotonic()
        while True:
            if self._clock.monotonic() - began > LATE_SECONDS:
                headers[REPUBLISHED] = "true"
            try:
                await self._bus.publish_durable(SUBJECT, data, msg_id=record.id, headers=headers)
            except errors.MeshwrightError as error:
                metrics.RECORDS_RETRIED.inc()
                self._health.degrade(PART, f"records wait to be stored: {error}")
                await self._clock.sleep(backoff.delay())
            else:
                self.stored += 1
                metrics.RECORDS_STORED.inc()
                self._health.set(PART, True)
                return
