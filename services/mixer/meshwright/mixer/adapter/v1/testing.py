"""Runs an adapter as mixer would, inside a test: no server, no NATS, no native module.

async with running(ADAPTER, {"endpoint": "…"}, host) as handler:
    await handler.handle([log_entry({"user": "ann"})])
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from meshwright.mixer.adapter.v1.interface import Adapter, Handler
from meshwright.mixer.adapter.v1.record import Entry, LogEntry, Metric, Origin, Value

_numbers = itertools.count(1)


def _no_channel(target: str, peer: str | None) -> Any:
    raise AssertionError(f"the adapter asked for a channel to {target}: give the test's host a `channels` function")


@dataclass(frozen=True, slots=True)
class FakeHost:
    """A host for tests; `channels` makes what `channel` returns."""

    otlp: str | None = None
    instance: str = "test"
    channels: Callable[[str, str | None], Any] = _no_channel

    def channel(self, target: str, peer: str | None) -> Any:
        """What the test's `channels` makes of it."""
        return self.channels(target, peer)


class Checked:
    """Passes batches on after verifying that they are what mixer would give to this adapter."""

    def __init__(self, adapter: Adapter, handler: Handler) -> None:
        self._adapter, self._handler = adapter, handler

    async def handle(self, batch: Sequence[Entry]) -> None:
        """Hand the batch to the adapter's handler."""
        for entry in batch:
            template = "logentry" if isinstance(entry, LogEntry) else "metric"
            if template not in self._adapter.templates:
                raise AssertionError(f"adapter {self._adapter.name} doesn't take template {template}")
        await self._handler.handle(batch)


@asynccontextmanager
async def running(
    adapter: Adapter, parameters: Mapping[str, Any], host: FakeHost | None = None
) -> AsyncIterator[Handler]:
    """The adapter at work with `parameters` as they would stand in YAML."""
    accepted = adapter.parameters.model_validate(parameters)
    async with adapter.open(accepted, host or FakeHost()) as handler:
        yield Checked(adapter, handler)


def origin(**given: Any) -> Origin:
    """An origin with a new record id; `given` replaces what doesn't fit."""
    return Origin(**{"record_id": f"{next(_numbers):032x}", "time": datetime.now(UTC), **given})


def log_entry(variables: Mapping[str, Value], *, instance: str = "log.default", **given: Any) -> LogEntry:
    """A log entry; `given` are fields of its origin."""
    source = origin(**given)
    return LogEntry(instance=instance, origin=source, timestamp=source.time, severity="info", variables=variables)


def metric(
    value: int | float | timedelta, dimensions: Mapping[str, Value], *, instance: str = "metric.default", **given: Any
) -> Metric:
    """A measurement; `given` are fields of its origin."""
    return Metric(instance=instance, origin=origin(**given), value=value, dimensions=dimensions)
