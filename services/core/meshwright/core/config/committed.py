"""Configuration as the manager committed it: one snapshot for each revision, followed by watch.

One decision to know: while the store is away the last snapshot stands and health says so; the process doesn't end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from types import MappingProxyType, TracebackType
from typing import Self

import structlog

from meshwright.core import clock as clocks
from meshwright.core import errors
from meshwright.core.config import layout
from meshwright.core.config.journal import Journal
from meshwright.core.config.source import Latest, Snapshot
from meshwright.core.health import Health
from meshwright.core.store import Change, Entry, Store, follow

_log = structlog.get_logger(__name__)
_RETRY_SECONDS = 5.0


class StoreSource(Latest):
    """`async with StoreSource(store, health=health) as source:`; `part` names it in health."""

    def __init__(
        self,
        store: Store,
        *,
        health: Health | None = None,
        part: str = "config",
        patience: float = 5.0,
        clock: clocks.Clock | None = None,
    ) -> None:
        super().__init__()
        self._store, self._health, self._part, self._patience = store, health, part, patience
        self._clock = clock or clocks.SystemClock()
        self._journal = Journal()
        self._listed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to follow. Waits `patience` seconds for the first snapshot and goes on without one after that."""
        self._task = asyncio.create_task(self._run(), name=f"follow {layout.PREFIX}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                await self._listed.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop following."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            try:
                await follow(
                    self._store,
                    layout.PREFIX,
                    self._list,
                    self._change,
                    health=self._health,
                    part=self._part,
                    clock=self._clock,
                )
            except (errors.MeshwrightError, ValueError, KeyError, TypeError) as error:
                # Not an outage: no right to read, or keys that aren't ours. A person has to act; the rest serves on.
                _log.exception("configuration_unreadable")
                if self._health:
                    self._health.outage(self._part, f"configuration can't be read: {error}")
            await self._clock.sleep(_RETRY_SECONDS)

    def _list(self, entries: Sequence[Entry], _revision: int) -> None:
        self._journal.load(entries)
        self._publish()
        self._listed.set()

    async def _change(self, change: Change) -> None:
        try:
            complete = self._journal.take(change)
        except errors.Conflict as error:
            _log.warning("configuration_listed_again", reason=str(error))
            entries, revision = await self._store.list(layout.PREFIX)
            self._list(entries, revision)
            return
        if complete:
            self._publish()

    def _publish(self) -> None:
        journal = self._journal
        for key, reason in journal.broken.items():
            _log.error("object_unreadable", object=str(key), reason=reason)
        self.replace(Snapshot(journal.revision, MappingProxyType(dict(journal.objects))))
        _log.info("configuration_changed", revision=journal.revision, objects=len(journal.objects))
