"""Gives batches of records to the handlers that configuration names, and says which records every handler took.

One decision to know: all handlers are opened, used and closed in the one task that calls `deliver`, so configuration
may change at any time without a lock; a handler whose parameters change is opened anew before the next batch.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import structlog

from meshwright.api.mixer.v1 import record_pb2
from meshwright.core.health import Health
from meshwright.mixer import metrics
from meshwright.mixer.adapter.v1 import Adapter, Entry, Handler, Host
from meshwright.mixer.config.compiler import Sink
from meshwright.mixer.pipeline import decode

HANDLE_SECONDS = 8.0
"""Deadline of one batch in one handler; below the time after which the queue gives a batch to somebody else."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One record as it came out of the queue."""

    record: record_pb2.Record
    redelivered: bool


@dataclass(slots=True)
class _Open:
    sink: Sink
    handler: Handler
    stack: AsyncExitStack


class Dispatcher:
    """`async with Dispatcher(…)`; `configure` whenever a policy is loaded, `deliver` from one task."""

    def __init__(self, adapters: Mapping[str, Adapter], host: Host, health: Health) -> None:
        self._adapters, self._host, self._health = adapters, host, health
        self._wanted: Mapping[str, Sink] = {}
        self._open: dict[str, _Open] = {}

    def configure(self, sinks: Mapping[str, Sink]) -> None:
        """Take the handlers of a newly loaded policy; they are opened when the next batch comes."""
        self._wanted = sinks

    async def deliver(self, arrivals: Sequence[Arrival]) -> list[bool]:
        """Whether each record was taken by every handler that it is for; nobody's records count as taken."""
        wanted = self._wanted
        await self._close({name for name, opened in self._open.items() if wanted.get(name) != opened.sink})
        batches: dict[str, list[tuple[int, Entry]]] = defaultdict(list)
        for number, arrival in enumerate(arrivals):
            for name, entry in decode.entries(arrival.record, redelivered=arrival.redelivered):
                if name in wanted:
                    batches[name].append((number, entry))
                else:  # the handler was deleted while the record waited
                    metrics.RECORDS_UNCLAIMED.inc()
        ready = [name for name in sorted(batches) if name in self._open or await self._begin(name, wanted[name])]
        results = await asyncio.gather(*(self._handle(name, [entry for _, entry in batches[name]]) for name in ready))
        refused = set(batches) - {name for name, succeeded in zip(ready, results, strict=True) if succeeded}
        lost = {number for name in refused for number, _ in batches[name]}
        return [number not in lost for number in range(len(arrivals))]

    async def _handle(self, name: str, batch: Sequence[Entry]) -> bool:
        """Whether the handler took the batch. An adapter's failure of any kind means that the batch comes again."""
        opened = self._open[name]
        try:
            async with asyncio.timeout(HANDLE_SECONDS):
                await opened.handler.handle(batch)
        except Exception as error:
            self._failed(name, opened.sink, error)
            return False
        metrics.ENTRIES_HANDLED.labels(name, opened.sink.adapter).inc(len(batch))
        self._health.set(f"adapter {name}", True)
        return True

    async def _begin(self, name: str, sink: Sink) -> bool:
        """Whether the handler could be opened. Called in turn, never in tasks of their own: contexts may hold tasks."""
        stack = AsyncExitStack()
        try:
            async with asyncio.timeout(HANDLE_SECONDS):
                context = self._adapters[sink.adapter].open(sink.parameters, self._host)
                handler = await stack.enter_async_context(context)
        except Exception as error:
            self._failed(name, sink, error)
            return False
        self._open[name] = _Open(sink, handler, stack)
        _log.info("handler_opened", handler=name, adapter=sink.adapter)
        return True

    def _failed(self, name: str, sink: Sink, error: Exception) -> None:
        reason = "no answer in time" if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}"
        metrics.BATCHES_FAILED.labels(name, sink.adapter).inc()
        self._health.degrade(f"adapter {name}", reason[:300])

    async def _close(self, names: set[str]) -> None:
        for name in names:
            opened = self._open.pop(name)
            try:
                await opened.stack.aclose()
            except Exception as error:
                _log.warning("handler_close_failed", handler=name, error=str(error))
            self._health.forget(f"adapter {name}")

    async def __aenter__(self) -> Self:
        """Begin without handlers."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every handler."""
        await self._close({*self._open})
