"""The same call many times: by so many callers at once, and not faster than a rate."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from meshwright.core import clock as clocks


@dataclass(slots=True)
class Outcome:
    """What the calls took, in seconds."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    def describe(self) -> dict[str, Any]:
        """As plain data."""
        ordered = sorted(self.latencies)

        def quantile(share: float) -> float:
            return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)

        return {
            "calls": len(ordered),
            "seconds": round(self.seconds, 3),
            "calls_per_second": round(len(ordered) / self.seconds, 1) if self.seconds else 0.0,
            "milliseconds": {"p50": quantile(0.5), "p90": quantile(0.9), "p99": quantile(0.99), "max": quantile(1)},
        }


async def repeat(
    call: Callable[[], Awaitable[None]],
    *,
    times: int = 1,
    concurrency: int = 1,
    rate: float | None = None,
    clock: clocks.Clock | None = None,
) -> Outcome:
    """Call `times` times at least once; the first call that raises ends the others, and its error is raised.

    With a rate, call number n begins no sooner than n / rate seconds after the first.
    """
    clock = clock or clocks.SystemClock()
    outcome, numbers, began = Outcome(), iter(range(times)), clock.monotonic()

    async def caller() -> None:
        for number in numbers:
            if rate is not None and (pause := began + number / rate - clock.monotonic()) > 0:
                await clock.sleep(pause)
            start = clock.monotonic()
            await call()
            outcome.latencies.append(clock.monotonic() - start)

    try:
        async with asyncio.TaskGroup() as tasks:
            for number in range(min(concurrency, times)):
                tasks.create_task(caller(), name=f"caller {number}")
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    outcome.seconds = clock.monotonic() - began
    return outcome
