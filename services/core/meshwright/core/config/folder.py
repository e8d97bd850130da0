"""Configuration from a folder (or one file) of YAML, for a service that runs without the manager.

One decision to know: the folder is looked at every second instead of by inotify, which misses network file systems and
the renames of mounted ConfigMaps. A fault keeps the last good snapshot and degrades health; at the start it ends the
process, because there is nothing good to keep.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import structlog

from meshwright.core import clock as clocks
from meshwright.core import errors
from meshwright.core.config import documents
from meshwright.core.config.limits import LIMITS, Limits
from meshwright.core.config.objects import Object
from meshwright.core.config.source import Latest, Snapshot
from meshwright.core.health import Health

_log = structlog.get_logger(__name__)
_Signature = tuple[tuple[str, int, int, int, int], ...]


class FolderSource(Latest):
    """`async with FolderSource(path, health=health) as source:`."""

    def __init__(
        self,
        path: Path,
        *,
        health: Health | None = None,
        period: float = 1.0,
        clock: clocks.Clock | None = None,
        limits: Limits = LIMITS,
    ) -> None:
        super().__init__()
        self._path, self._health, self._period = path, health, period
        self._clock, self._limits = clock or clocks.SystemClock(), limits
        self._seen: _Signature | None = None
        self._known: documents.Known = {}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Read the folder, raising ConfigError for any fault, and begin to watch it."""
        await asyncio.to_thread(self._prepare)
        objects = await asyncio.to_thread(self._read)
        self.replace(Snapshot(1, MappingProxyType({object_.key: object_ for object_ in objects})))
        self._tell("")
        self._task = asyncio.create_task(self._watch(), name=f"config {self._path}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _prepare(self) -> None:
        self._seen = self._signature()

    async def _watch(self) -> None:
        while True:
            await self._clock.sleep(self._period)
            await self.look()

    async def look(self) -> None:
        """Read the folder if it changed since the last look."""
        try:
            try:
                seen = await asyncio.to_thread(self._signature)
            except errors.ConfigError:
                self._seen = None  # so that the same folder is read when it is back
                raise
            if seen == self._seen:
                return
            self._seen = seen  # a fault is told once, not read again each second
            read = await asyncio.to_thread(self._read)
            if seen != await asyncio.to_thread(self._signature):
                return  # somebody is writing: judge it when they are done
        except errors.ConfigError as error:
            self._tell(str(error))
            return
        self._tell("")
        before, objects = self.current(), {object_.key: object_ for object_ in read}
        if objects != dict(before.objects):
            self.replace(Snapshot(before.revision + 1, MappingProxyType(objects)))
            _log.info("configuration_changed", path=str(self._path), revision=before.revision + 1, objects=len(objects))

    def _tell(self, fault: str) -> None:
        if self._health is None:
            return
        if fault:
            self._health.degrade("config", f"the last good configuration is served on: {fault}")
        else:
            self._health.set("config", True)

    def _read(self) -> list[Object]:
        read = documents.read_documents(self._path, limits=self._limits, known=self._known)
        files = {entry[0] for entry in self._signature()}
        self._known = {name: known for name, known in self._known.items() if name in files}
        return read

    def _signature(self) -> _Signature:
        entries = []
        for file in documents.files(self._path, limits=self._limits):
            try:
                status = file.stat()
            except OSError:  # removed between listing and looking
                continue
            entries.append((str(file), status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino))
        return tuple(entries)
