"""The work queue of records: its names in JetStream and its limits, in one place for the pump and the worker."""

from __future__ import annotations

from collections.abc import AsyncIterator

from meshwright.core import clock as clocks
from meshwright.core import errors
from meshwright.core.bus import Bus, Delivery
from meshwright.core.health import Health
from meshwright.core.renewal import Backoff

STREAM = "MESHWRIGHT_RECORDS"
SUBJECT = "meshwright.mixer.records"
DURABLE = "adapters"
PART = "records"

ACK_SECONDS = 10.0
"""A batch that nobody acknowledged for so long (its worker died) is given to another worker."""
MAX_UNACKNOWLEDGED = 4096
"""Records under way to adapters, at most; the rest waits in the stream."""
RECORD_BYTES = (1 << 20) - 8192
"""Largest record that the queue takes, with room for headers."""

REPUBLISHED = "Meshwright-Republished"
"""Header of a record that was published again so late that the queue may not know the first time any more."""


async def ensure(bus: Bus, max_bytes: int, health: Health, clock: clocks.Clock) -> None:
    """Create the stream, or take the one that is there; while the server is away, try again."""
    backoff = Backoff(0.2, 2.0)
    while True:
        try:
            await bus.ensure_stream(STREAM, [SUBJECT], max_bytes=max_bytes)
        except (errors.Unavailable, errors.DeadlineExceeded) as error:
            health.degrade(PART, str(error))
            await clock.sleep(backoff.delay())
        else:
            health.set(PART, True)
            return


def deliveries(bus: Bus) -> AsyncIterator[Delivery]:
    """Records as they come, shared with the workers of other replicas."""
    return bus.consume(STREAM, DURABLE, SUBJECT, ack_seconds=ACK_SECONDS, max_unacknowledged=MAX_UNACKNOWLEDGED)
