"""Requests that never stop while the mesh changes under them: every failure is kept with its moment and reason."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from meshwright.core import errors
from meshwright.platform.demo.client import Answer

Request = Callable[[], Awaitable[Answer]]
_FAILURES_KEPT = 20


@dataclass(slots=True)
class Tally:
    """What happened so far."""

    sent: int = 0
    failed: int = 0
    failures: list[str] = field(default_factory=list)
    longest_seconds: float = 0.0
    answers: dict[str, int] = field(default_factory=dict)

    def fail(self, reason: str) -> None:
        """Count a failure; the first ones are kept in words."""
        self.failed += 1
        if len(self.failures) < _FAILURES_KEPT:
            self.failures.append(reason)

    def count(self, kind: str) -> None:
        """Count an answer of some kind, for example from which version it came."""
        self.answers[kind] = self.answers.get(kind, 0) + 1


async def send(request: Request, tally: Tally, classify: Callable[[Answer], str] | None = None) -> None:
    """Make one request and count it; anything but 200 is a failure."""
    tally.sent += 1
    began = time.monotonic()
    try:
        answer = await request()
    except errors.MeshwrightError as error:
        tally.fail(f"{type(error).__name__}: {error}")
        return
    finally:
        tally.longest_seconds = max(tally.longest_seconds, time.monotonic() - began)
    if answer.status != 200:
        tally.fail(f"status {answer.status}: {answer.body[:200].decode(errors='replace')}")
    elif classify:
        tally.count(classify(answer))


async def burst(
    request: Request, count: int, concurrency: int, classify: Callable[[Answer], str] | None = None
) -> Tally:
    """Make `count` requests, `concurrency` at a time."""
    tally = Tally()

    async def worker() -> None:
        while tally.sent < count:
            await send(request, tally, classify)

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(worker())
    return tally


@contextlib.asynccontextmanager
async def steady(
    request: Request, per_second: float, classify: Callable[[Answer], str] | None = None
) -> AsyncIterator[Tally]:
    """Begin a request every 1/`per_second` s, whether or not earlier ones are answered, for the context's length."""
    tally = Tally()

    async def pace() -> None:
        async with asyncio.TaskGroup() as group:
            due = time.monotonic()
            while not done.is_set():
                group.create_task(send(request, tally, classify))
                due += 1 / per_second
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, due - time.monotonic())):
                        await done.wait()

    done = asyncio.Event()
    task = asyncio.create_task(pace(), name="steady load")
    try:
        yield tally
    finally:
        done.set()
        await task
