"""What only the in-memory store has: an injected clock and a history that a test can shorten."""

from __future__ import annotations

import asyncio

from meshwright.core import clock, store
from meshwright.core.store import memory


async def test_silent_holder_loses_its_lease_after_its_time() -> None:
    time = clock.ManualClock()
    opened = store.MemoryStore(clock=time)
    async with opened.lease(9) as lease:
        assert isinstance(lease, memory.MemoryLease)
        await opened.put("a", b"", lease=lease)
        await asyncio.sleep(0)
        await time.advance(60)
        assert await opened.get("a"), "a holder that lives keeps its lease"
        lease.fall_silent()
        await time.advance(12)
        assert await opened.get("a") is None
        assert lease.lost.is_set()


async def test_forgotten_history_asks_for_a_new_list() -> None:
    opened = store.MemoryStore()
    revision = await opened.put("a", b"1")
    await opened.put("a", b"2")
    opened.compact()
    assert isinstance(await anext(opened.watch("a", revision)), store.Resync)


async def test_reader_that_falls_behind_is_told_and_costs_nothing() -> None:
    opened = store.MemoryStore()
    changes = opened.watch("", await opened.put("a", b""))
    await opened.put("a", b"first")
    assert await anext(changes)
    for _ in range(11_000):
        await opened.put("a", b"")
    assert isinstance(await anext(changes), store.Resync)


async def test_follow_lists_again_after_a_gap() -> None:
    opened = store.MemoryStore()
    lists = asyncio.Queue[int]()
    changed = asyncio.Event()
    release = asyncio.Event()

    async def on_change(_change: store.Change) -> None:
        changed.set()
        await release.wait()

    following = asyncio.create_task(
        store.follow(opened, "", lambda entries, _: lists.put_nowait(len(entries)), on_change)
    )
    async with asyncio.timeout(10):
        assert await lists.get() == 0
        await opened.put("a", b"")
        await changed.wait()
        await opened.put("b", b"")
        opened.compact()
        release.set()
        assert await lists.get() == 2
    following.cancel()
