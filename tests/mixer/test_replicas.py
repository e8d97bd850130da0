"""Replicas find one another: who comes is told, who goes is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from meshwright.core.health import Health
from meshwright.core.store import MemoryStore
from meshwright.mixer.replicas import Replicas


class Told:
    """What the engine was told, with a way to wait for it."""

    def __init__(self) -> None:
        self.replicas: list[tuple[str, str]] = []
        self.own_id = ""
        self._changed = asyncio.Event()

    def __call__(self, own_id: str, replicas: Sequence[tuple[str, str]]) -> None:
        self.own_id, self.replicas = own_id, [*replicas]
        self._changed.set()

    async def until(self, condition: Callable[[list[tuple[str, str]]], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition(self.replicas):
                self._changed.clear()
                await self._changed.wait()


async def test_replicas_come_and_go() -> None:
    store, told = MemoryStore(), Told()
    one = Replicas(store, "one", told, Health(), ttl_seconds=5)
    two = Replicas(store, "two", lambda *_: None, Health(), ttl_seconds=5)
    async with asyncio.TaskGroup() as tasks:
        own = [tasks.create_task(one.follow()), tasks.create_task(one.register("127.0.0.1:1"))]
        other = tasks.create_task(two.register("127.0.0.1:2"))
        await told.until(lambda known: known == [("one", "127.0.0.1:1"), ("two", "127.0.0.1:2")])
        assert told.own_id == "one"
        other.cancel()
        await told.until(lambda known: known == [("one", "127.0.0.1:1")])
        for task in own:
            task.cancel()
