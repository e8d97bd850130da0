"""Groups what comes one by one: a batch ends when it is full or when its first item has waited long enough."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

T = TypeVar("T")


async def batches(items: AsyncIterator[T], size: int, seconds: float) -> AsyncIterator[list[T]]:
    """Batches of up to `size` items, none held back for longer than `seconds`; ends with `items`."""
    loop = asyncio.get_running_loop()
    pending: asyncio.Task[T] | None = None
    batch: list[T] = []
    deadline = 0.0
    try:
        while True:
            pending = pending or asyncio.ensure_future(_next(items))
            await asyncio.wait({pending}, timeout=deadline - loop.time() if batch else None)
            if pending.done():
                try:
                    item = pending.result()
                except StopAsyncIteration:
                    pending = None
                    if batch:
                        yield batch
                    return
                pending = None
                if not batch:
                    deadline = loop.time() + seconds
                batch.append(item)
            if batch and (len(batch) >= size or loop.time() >= deadline):
                full, batch = batch, []
                yield full
    finally:
        if pending is not None:
            pending.cancel()
            await asyncio.wait({pending})


async def _next(items: AsyncIterator[T]) -> T:
    return await anext(items)
