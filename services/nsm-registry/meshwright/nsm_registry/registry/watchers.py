"""Who watches what: a change costs in those who asked for it, and a slow one is dropped with the reason.

One decision to know: an object that stops fitting a query is told as deleted. The original says nothing then, nor when
it is deleted later, so that its watchers keep what no longer is.
"""

from __future__ import annotations

import asyncio
from typing import Any

from meshwright.core import errors
from meshwright.nsm_registry.registry.kinds import Kind

_QUEUE = 1024  # changes that a watcher may lag behind
_WATCHERS = 100_000  # services + endpoints + connections of a large mesh

Change = tuple[Any, bool]
"""An object, and whether it is deleted (then its last form)."""


class Watcher:
    """One stream's changes."""

    def __init__(self, query: Any) -> None:
        self.query = query
        self._changes: asyncio.Queue[Change] = asyncio.Queue(_QUEUE)
        self._late = asyncio.Event()

    def put(self, change: Change) -> None:
        """Queue a change; one too many and the watcher is late for good."""
        try:
            self._changes.put_nowait(change)
        except asyncio.QueueFull:
            self._late.set()

    async def next(self) -> Change:
        """Return the next change; raise Exhausted when some were lost."""
        if self._late.is_set():
            raise errors.Exhausted(f"this watcher is more than {_QUEUE} changes behind (find again, then watch)")
        return await self._changes.get()


class Watchers:
    """All watchers of a kind, by what they ask for: a name, a service, or anything."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._by_key: dict[tuple[str, str], set[Watcher]] = {}
        self._count = 0

    def add(self, query: Any) -> Watcher:
        """Begin to watch."""
        if self._count >= _WATCHERS:
            raise errors.Exhausted(f"{_WATCHERS} watchers are connected already")
        watcher = Watcher(query)
        self._by_key.setdefault(self._key(query), set()).add(watcher)
        self._count += 1
        return watcher

    def remove(self, watcher: Watcher) -> None:
        """Stop watching."""
        key = self._key(watcher.query)
        members = self._by_key.get(key, set())
        if watcher in members:
            members.remove(watcher)
            self._count -= 1
            if not members:
                del self._by_key[key]

    def changed(self, before: Any, after: Any) -> None:
        """Tell those whose query fits the object as it is or as it was."""
        for key in self._keys(before) | self._keys(after):
            for watcher in tuple(self._by_key.get(key, ())):
                if after is not None and self._kind.matches(watcher.query, after):
                    watcher.put((after, False))
                elif before is not None and self._kind.matches(watcher.query, before):
                    watcher.put((after if after is not None else before, True))

    def _key(self, query: Any) -> tuple[str, str]:
        if query.name:
            return ("name", query.name)
        return next((("group", group) for group in self._kind.wanted_groups(query)), ("", ""))

    def _keys(self, message: Any) -> set[tuple[str, str]]:
        if message is None:
            return set()
        return {("name", message.name), ("", ""), *(("group", group) for group in self._kind.groups(message))}

    def __len__(self) -> int:
        return self._count
