"""Where a service's configuration comes from: always a whole snapshot, replaced by the next whole snapshot.

One decision to know: a reader that is slower than the changes sees the newest snapshot, not every one between.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType
from typing import Protocol, Self

from meshwright.core import errors
from meshwright.core.config.objects import Key, Object


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All objects at one revision. Revisions grow; they compare within one source only."""

    revision: int
    objects: Mapping[Key, Object] = field(default_factory=lambda: MappingProxyType({}))


class Source(Protocol):
    """Entered as a context it has a snapshot and keeps it fresh."""

    def current(self) -> Snapshot:
        """Return the newest snapshot."""
        ...

    def changes(self) -> AsyncIterator[Snapshot]:
        """Yield the newest snapshot, then each newer one."""
        ...

    async def __aenter__(self) -> Self:
        """Get the first snapshot and begin to follow."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop following."""
        ...


class Latest:
    """Holds the newest snapshot and wakes who waits for it; the part that all sources share."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._changed = asyncio.Event()

    def current(self) -> Snapshot:
        """Return the newest snapshot."""
        if self._snapshot is None:
            raise errors.Unavailable("no configuration yet: enter the source before using it")
        return self._snapshot

    def replace(self, snapshot: Snapshot) -> None:
        """Make `snapshot` the newest."""
        self._snapshot = snapshot
        self._changed.set()
        self._changed = asyncio.Event()

    async def changes(self) -> AsyncIterator[Snapshot]:
        """Yield the newest snapshot (waiting for the first one), then each newer one."""
        while True:
            changed, snapshot = self._changed, self._snapshot
            if snapshot is not None:
                yield snapshot
            await changed.wait()
