"""Takes records from the work queue and gives them to adapters; acknowledges each only when every handler took it.

One decision to know: after a refused batch the worker itself pauses before it takes the next one, because a backend
that is away refuses all batches alike, and every attempt marks more records as possible duplicates.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog
from google.protobuf.message import DecodeError
from opentelemetry import propagate, trace

from meshwright.api.mixer.v1 import record_pb2
from meshwright.core import clock as clocks
from meshwright.core import errors
from meshwright.core.bus import Bus, Delivery
from meshwright.core.health import Health
from meshwright.core.renewal import Backoff
from meshwright.mixer import metrics
from meshwright.mixer.pipeline import stream
from meshwright.mixer.pipeline.batches import batches
from meshwright.mixer.pipeline.dispatch import Arrival, Dispatcher

_log = structlog.get_logger(__name__)
_tracer = trace.get_tracer("meshwright.mixer")


class Worker:
    """One a process; replicas share the queue's records among them. `settled` counts what it acknowledged."""

    def __init__(
        self,
        bus: Bus,
        dispatcher: Dispatcher,
        *,
        health: Health,
        max_bytes: int,
        batch_records: int,
        batch_seconds: float,
        clock: clocks.Clock | None = None,
    ) -> None:
        self._bus, self._dispatcher = bus, dispatcher
        self._health, self._max_bytes = health, max_bytes
        self._size, self._seconds = batch_records, batch_seconds
        self._clock = clock or clocks.SystemClock()
        self._progress = asyncio.Event()
        self.settled = 0

    async def run(self) -> None:
        """Work for as long as the task lives; waits for the queue's server first."""
        await stream.ensure(self._bus, self._max_bytes, self._health, self._clock)
        backoff = Backoff(0.5, 3.0)
        async for batch in batches(stream.deliveries(self._bus), self._size, self._seconds):
            if await self.handle(batch, backoff):
                backoff.reset()
            else:
                await self._clock.sleep(backoff.delay())

    async def until_settled(self, count: int) -> None:
        """Return when so many records have been acknowledged since the start; the caller sets the deadline."""
        while self.settled < count:
            progress = self._progress
            await progress.wait()

    async def handle(self, batch: Sequence[Delivery], backoff: Backoff) -> bool:
        """Give one batch to the handlers and settle each record; return whether all were taken."""
        readable: list[tuple[Delivery, Arrival]] = []
        for delivery in batch:
            try:
                record = record_pb2.Record.FromString(delivery.data)
            except DecodeError as error:
                metrics.RECORDS_UNREADABLE.inc()
                _log.warning("record_unreadable", reason=str(error))
                await self._settle(delivery, taken=True, delay=0)
                continue
            redelivered = delivery.count > 1 or stream.REPUBLISHED in delivery.headers
            if redelivered:
                metrics.RECORDS_REDELIVERED.inc()
            readable.append((delivery, Arrival(record, redelivered)))
        began = self._clock.now()
        taken = await self._dispatcher.deliver([arrival for _, arrival in readable])
        delay = 0.0 if all(taken) else backoff.delay()
        for (delivery, arrival), was_taken in zip(readable, taken, strict=True):
            await self._settle(delivery, taken=was_taken, delay=delay)
            self._trace(delivery, arrival, int(began.timestamp() * 1e9), was_taken)
        progress, self._progress = self._progress, asyncio.Event()
        progress.set()
        return all(taken)

    async def _settle(self, delivery: Delivery, *, taken: bool, delay: float) -> None:
        try:
            if taken:
                await delivery.ack()
                self.settled += 1
                metrics.RECORDS_ACKNOWLEDGED.inc()
            else:
                await delivery.nak(delay)
                metrics.RECORDS_RETURNED.inc()
        except errors.MeshwrightError as error:
            # The queue gives it to somebody again, marked.
            _log.warning("record_not_settled", taken=taken, reason=str(error))

    def _trace(self, delivery: Delivery, arrival: Arrival, began: int, taken: bool) -> None:
        """A span of the record's way through the queue, in the trace of its request."""
        context = propagate.extract(dict(delivery.headers))
        if not trace.get_current_span(context).get_span_context().is_valid:
            return
        span = _tracer.start_span(
            f"deliver {stream.SUBJECT}",
            context,
            trace.SpanKind.CONSUMER,
            {
                "messaging.system": "nats",
                "messaging.destination.name": stream.SUBJECT,
                "messaging.message.id": arrival.record.id,
                "meshwright.delivery.count": delivery.count,
            },
            start_time=began,
        )
        if not taken:
            span.set_status(trace.StatusCode.ERROR, "a handler refused it; it comes again")
        span.end()
