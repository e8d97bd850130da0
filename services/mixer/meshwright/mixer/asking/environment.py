"""What one handler is lent (`meshwright.mixer.adapter.v1.Host`), all of which ends with it: its background work, its
channels, and whatever tasks it has begun and forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from meshwright.core import clock as clocks
from meshwright.core.renewal import Backoff
from meshwright.mixer.adapter import v1
from meshwright.mixer.asking.adapter_metrics import HandlerMetrics
from meshwright.mixer.host import MixerHost

TASKS = 10_000
"""Tasks that one handler may have at once; more are a leak."""
END_SECONDS = 3.0
"""How long tasks get to end after they were cancelled."""

_log = structlog.get_logger("meshwright.adapter")


class Environment:
    """Implements the SDK's `Host`, and owns a handler's tasks (meshwright.mixer.asking.loop.Owner)."""

    def __init__(self, name: str, adapter: str, lent: MixerHost, metrics: HandlerMetrics, clock: clocks.Clock) -> None:
        self._name, self._lent, self._metrics, self._clock = name, lent, metrics, clock
        self._logger = _log.bind(handler=name, adapter=adapter)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._channels: list[Any] = []

    @property
    def name(self) -> str:
        """The handler's name."""
        return self._name

    @property
    def handler(self) -> str:
        """The handler's name."""
        return self._name

    @property
    def replica(self) -> str:
        """The name of this mixer replica."""
        return self._lent.replica

    @property
    def otlp(self) -> str | None:
        """The collector that mixer was started with."""
        return self._lent.otlp

    @property
    def logger(self) -> v1.Logger:
        """A logger that names the handler and the adapter."""
        logger: v1.Logger = self._logger
        return logger

    @property
    def metrics(self) -> v1.Metrics:
        """The adapter's own metrics."""
        return self._metrics

    @property
    def clock(self) -> v1.Clock:
        """Mixer's clock."""
        return self._clock

    @property
    def tasks(self) -> int:
        """How many tasks the handler has."""
        return len(self._tasks)

    def background(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` until the handler closes; again after a pause when it raises."""
        asyncio.get_running_loop().create_task(self._keep(name, work), name=f"{self._name}: {name}")

    def channel(self, target: str, peer: str | None) -> Any:
        """A channel with mixer's identity."""
        channel = self._lent.channel(target, peer)
        self._channels.append(channel)
        return channel

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Take a task into care."""
        if len(self._tasks) >= TASKS:
            raise RuntimeError(f"handler {self._name} has {TASKS} tasks: await them, or cancel what isn't needed")
        self._tasks.add(task)

    def release(self, task: asyncio.Task[Any]) -> None:
        """It has ended."""
        self._tasks.discard(task)

    async def close(self, spare: asyncio.Task[Any] | None) -> None:
        """End all tasks but `spare`, which is the caller; those that don't end are told of and left."""
        left = self._tasks - {spare}
        for task in left:
            task.cancel()
        if left:
            _, left = await asyncio.wait(left, timeout=END_SECONDS)
        if left:
            self._logger.warning("adapter_tasks_left", count=len(left), first=next(iter(left)).get_name())
        for channel in self._channels:
            with contextlib.suppress(Exception):
                await channel.close()
        self._metrics.close()

    async def _keep(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        backoff = Backoff(0.5, 30.0)
        while True:
            began = self._clock.monotonic()
            try:
                await work()
            except (Exception, SystemExit, KeyboardInterrupt) as error:
                self._logger.warning("adapter_background_failed", work=name, reason=f"{type(error).__name__}: {error}")
            else:
                return
            if self._clock.monotonic() - began > 60:
                backoff.reset()
            await self._clock.sleep(backoff.delay())
