"""A host for tests: it keeps what the adapter logs and measures, and its clock moves when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

Sample = tuple[str, tuple[tuple[str, str], ...]]
"""A metric's name, and its labels in order of names."""


def _no_channel(target: str, peer: str | None) -> Any:
    raise AssertionError(f"the adapter asked for a channel to {target}: give the test's host a `channels` function")


class Log:
    """Keeps (level, event, fields)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def debug(self, event: str, **fields: Any) -> None:
        """Keep the line."""
        self.lines.append(("debug", event, fields))

    def info(self, event: str, **fields: Any) -> None:
        """Keep the line."""
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: Any) -> None:
        """Keep the line."""
        self.lines.append(("warning", event, fields))

    def error(self, event: str, **fields: Any) -> None:
        """Keep the line."""
        self.lines.append(("error", event, fields))


@dataclass(slots=True)
class _Series:
    values: dict[Sample, float]
    sample: Sample

    def inc(self, amount: float = 1) -> None:
        self.values[self.sample] = self.values.get(self.sample, 0) + amount

    def set(self, value: float) -> None:
        self.values[self.sample] = value

    def observe(self, amount: float) -> None:
        self.inc(amount)


class Values:
    """Keeps every metric's value: of a histogram the sum of what was observed."""

    def __init__(self) -> None:
        self.values: dict[Sample, float] = {}

    def counter(self, name: str, documentation: str, **labels: str) -> _Series:
        """A counter."""
        return self._series(name, labels)

    def gauge(self, name: str, documentation: str, **labels: str) -> _Series:
        """A gauge."""
        return self._series(name, labels)

    def histogram(self, name: str, documentation: str, *, buckets: Sequence[float] = (), **labels: str) -> _Series:
        """A histogram."""
        return self._series(name, labels)

    def read(self, name: str, **labels: str) -> float:
        """The value of one series; 0 when nothing was counted."""
        return self.values.get((name, tuple(sorted(labels.items()))), 0)

    def _series(self, name: str, labels: dict[str, str]) -> _Series:
        return _Series(self.values, (name, tuple(sorted(labels.items()))))


class StillClock:
    """Time that only moves by `advance`."""

    def __init__(self) -> None:
        self._now, self._elapsed = datetime(2026, 1, 1, tzinfo=UTC), 0.0
        self._moved = asyncio.Event()

    def now(self) -> datetime:
        """The wall time as advanced so far."""
        return self._now

    def monotonic(self) -> float:
        """The seconds advanced so far."""
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        """Wait until the time has come."""
        until = self._elapsed + seconds
        while self._elapsed < until:
            await self._moved.wait()

    def advance(self, seconds: float) -> None:
        """Move time on; who slept until then wakes up when the test next awaits."""
        self._elapsed += seconds
        self._now += timedelta(seconds=seconds)
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()


@dataclass(slots=True)
class RecordingHost:
    """Implements the SDK's `Host`; `channels` makes what `channel` returns."""

    handler: str = "handler.default"
    replica: str = "test"
    otlp: str | None = None
    channels: Callable[[str, str | None], Any] = _no_channel
    logger: Log = field(default_factory=Log)
    metrics: Values = field(default_factory=Values)
    clock: StillClock = field(default_factory=StillClock)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _channels: list[Any] = field(default_factory=list)

    def background(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` until the handler closes; what it raises fails the test, where mixer would try again."""

        async def run() -> None:
            await work()

        self._tasks.append(asyncio.create_task(run(), name=name))

    def channel(self, target: str, peer: str | None) -> Any:
        """What the test's `channels` makes of it."""
        channel = self.channels(target, peer)
        self._channels.append(channel)
        return channel

    async def close(self) -> None:
        """End what the handler has begun; raises what its background work has raised."""
        tasks, self._tasks = self._tasks, []
        failed = [task.exception() for task in tasks if task.done() and not task.cancelled()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        channels, self._channels = self._channels, []
        for channel in channels:
            await channel.close()
        for error in failed:
            if error is not None:
                raise error
