"""Follows what is registered at any replica, and hands it on as objects of the mesh."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import structlog

from meshwright.core import clock as clocks
from meshwright.core import errors
from meshwright.core.config import Key
from meshwright.core.health import Health
from meshwright.core.store import Change, Entry, Store, follow
from meshwright.manager.model import parse
from meshwright.manager.sources.registration.instance import PREFIX

_TOGETHER_SECONDS = 0.05  # what comes together is handed on together
_RETRY_SECONDS = 5.0

_log = structlog.get_logger(__name__)


class Follower:
    """`on_change` is told all that is registered, whenever it differs."""

    def __init__(
        self,
        store: Store,
        health: Health,
        on_change: Callable[[Mapping[Key, parse.Parsed]], None],
        clock: clocks.Clock | None = None,
    ) -> None:
        self._store, self._health, self._on_change = store, health, on_change
        self._clock = clock or clocks.SystemClock()
        self._found: dict[str, parse.Parsed] = {}  # by the key in the store
        self._bell = asyncio.Event()
        self.listed = asyncio.Event()

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(), name="follow registrations in the store")
            tasks.create_task(self._hand_on(), name="hand on registrations")

    async def _follow(self) -> None:
        while True:
            try:
                await follow(
                    self._store,
                    PREFIX,
                    self._list,
                    self._change,
                    health=self._health,
                    part="registrations",
                    clock=self._clock,
                )
            except errors.MeshwrightError as error:  # no right to read: a person has to act, the rest serves on
                self._health.outage("registrations", f"registrations can't be read: {error}")
                self.listed.set()
            await self._clock.sleep(_RETRY_SECONDS)

    def _list(self, entries: Sequence[Entry], _revision: int) -> None:
        self._found = {}
        for entry in entries:
            self._put(entry.key, entry.value)
        self._on_change(self._objects())
        self.listed.set()

    def _change(self, change: Change) -> None:
        if change.value is None:
            self._found.pop(change.key, None)
        else:
            self._put(change.key, change.value)
        self._bell.set()

    async def _hand_on(self) -> None:
        while True:
            await self._bell.wait()
            await self._clock.sleep(_TOGETHER_SECONDS)
            self._bell.clear()
            self._on_change(self._objects())

    def _objects(self) -> Mapping[Key, parse.Parsed]:
        return {found.key: found for found in self._found.values()}

    def _put(self, path: str, value: bytes) -> None:
        found = parse.parse(value.decode(errors="replace"))
        if isinstance(found, parse.Parsed):
            self._found[path] = found
        else:
            self._found.pop(path, None)
            _log.warning("registration_unusable", path=path, fault=found[0].message)
