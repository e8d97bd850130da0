"""Brings the spans that Rust finished to the exporter, so that Rust's part of a trace is in it.

One decision to know: the queue is looked into now and then instead of waited for: no thread is held, one export carries
many spans, and a stopping process doesn't wait for a span that never comes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

from meshwright.core.telemetry.native import NativeSpan
from meshwright.dataplane import telemetry as native

_SECONDS = 0.25
_BATCH = 512

Take = Callable[[Sequence[NativeSpan]], None]


@contextlib.asynccontextmanager
async def drained(take: Take) -> AsyncIterator[None]:
    """Hand this process's native spans to `take` while the context lasts, and at its end what is left."""
    _drain(take)  # from the first time on, Rust makes spans
    task = asyncio.create_task(_run(take), name="drain native spans")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        _drain(take)


async def _run(take: Take) -> None:
    while True:
        await asyncio.sleep(_SECONDS)
        _drain(take)


def _drain(take: Take) -> None:
    while spans := native.drain(0.0, _BATCH):
        take(spans)
        if len(spans) < _BATCH:
            return
