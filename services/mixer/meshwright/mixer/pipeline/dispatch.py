"""Gives batches of records to the handlers that configuration names, and says which handlers refused their part."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from meshwright.api.mixer.v1 import record_pb2
from meshwright.core.health import Health
from meshwright.mixer import metrics
from meshwright.mixer.adapter.v1 import Entry
from meshwright.mixer.config.compiled import Sink
from meshwright.mixer.pipeline import decode

HANDLE_SECONDS = 8.0
"""Deadline of one batch in one handler; below the time after which the queue gives a batch to somebody else."""

Report = Callable[[str, Sequence[Entry]], Awaitable[None]]
"""Has a handler take a batch; raises when it didn't (meshwright.mixer.asking.host.AdapterHost.report)."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One record as it came out of the queue."""

    record: record_pb2.Record
    redelivered: bool


class Dispatcher:
    """`configure` whenever a policy is loaded; `deliver` records."""

    def __init__(self, report: Report, health: Health) -> None:
        self._report, self._health = report, health
        self._wanted: Mapping[str, Sink] = {}

    def configure(self, sinks: Mapping[str, Sink]) -> None:
        """Take the handlers of a newly loaded policy."""
        self._wanted = sinks

    async def deliver(self, arrivals: Sequence[Arrival]) -> set[str]:
        """Give every handler its part; return those that refused it."""
        wanted = self._wanted
        batches: dict[str, list[Entry]] = defaultdict(list)
        for arrival in arrivals:
            for name, entry in decode.entries(arrival.record, redelivered=arrival.redelivered):
                if name in wanted:
                    batches[name].append(entry)
                else:  # the handler was deleted while the record waited
                    metrics.ENTRIES_UNCLAIMED.inc()
        names = sorted(batches)
        results = await asyncio.gather(*(self._handle(name, wanted[name], batches[name]) for name in names))
        return {name for name, succeeded in zip(names, results, strict=True) if not succeeded}

    async def _handle(self, name: str, sink: Sink, batch: Sequence[Entry]) -> bool:
        """Whether the handler took the batch. An adapter's failure of any kind means that the batch comes again."""
        try:
            async with asyncio.timeout(HANDLE_SECONDS):
                await self._report(name, batch)
        except Exception as error:
            reason = "no answer in time" if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}"
            metrics.BATCHES_FAILED.labels(name, sink.adapter).inc()
            self._health.degrade(f"adapter {name}", reason[:300])
            return False
        metrics.ENTRIES_HANDLED.labels(name, sink.adapter).inc(len(batch))
        self._health.set(f"adapter {name}", True)
        return True
