"""What is registered, found in time that depends on the answer's size and not on how much there is.

One decision to know: this is a view in memory, in a replica's own order of events; the store behind it holds the truth.
Every entry carries its store revision, so that an echo of the store's watch never undoes something newer.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from meshwright.nsm_registry.registry.kinds import Kind
from meshwright.nsm_registry.registry.watchers import Change, Watchers


@dataclass(frozen=True, slots=True)
class Registered:
    """One registered object. `gone`: its time is over, but its name still belongs to `owner`."""

    message: Any
    owner: str  # SPIFFE ID of the first hop that registered it
    revision: int
    gone: bool = False

    @property
    def expires(self) -> datetime | None:
        """When the object's time is over; None for one that stays."""
        if "expiration_time" in self.message.DESCRIPTOR.fields_by_name and self.message.HasField("expiration_time"):
            return self.message.expiration_time.ToDatetime(tzinfo=UTC)  # type: ignore[no-any-return]
        return None


class Directory:
    """The objects of one kind, and who watches them."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.watchers = Watchers(kind)
        self.observers: list[Callable[[str, Registered], None]] = []  # told each new entry
        self._by_name: dict[str, Registered] = {}
        self._by_group: dict[str, dict[str, Registered]] = {}

    def get(self, name: str) -> Registered | None:
        """Return the entry of a name, also of one that is gone."""
        return self._by_name.get(name)

    def find(self, query: Any) -> list[Any]:
        """Return the objects that fit."""
        return [
            entry.message
            for entry in self._candidates(query)
            if not entry.gone and self.kind.matches(query, entry.message)
        ]

    async def stream(self, query: Any, watch: bool) -> AsyncGenerator[Change, None]:
        """Yield what fits now, and with `watch` every change after this moment."""
        if not watch:
            for message in self.find(query):
                yield message, False
            return
        found, watcher = self.find(query), self.watchers.add(query)
        try:
            for message in found:
                yield message, False
            while True:
                yield await watcher.next()
        finally:
            self.watchers.remove(watcher)

    def put(self, name: str, entry: Registered) -> None:
        """Take in a newer entry and tell the watchers; an older one is ignored."""
        before = self._by_name.get(name)
        if before is not None and before.revision >= entry.revision:
            return
        self._index(name, before, entry)
        for observer in self.observers:
            observer(name, entry)
        self.watchers.changed(_visible(before), _visible(entry))

    def remove(self, name: str, revision: int) -> None:
        """Take out an entry that was removed at `revision` and tell the watchers."""
        before = self._by_name.get(name)
        if before is None or before.revision > revision:
            return
        self._index(name, before, None)
        self.watchers.changed(_visible(before), None)

    def _index(self, name: str, before: Registered | None, entry: Registered | None) -> None:
        if before is not None:
            del self._by_name[name]
            for group in self.kind.groups(before.message):
                members = self._by_group[group]
                del members[name]
                if not members:
                    del self._by_group[group]
        if entry is not None:
            self._by_name[name] = entry
            for group in self.kind.groups(entry.message):
                self._by_group.setdefault(group, {})[name] = entry

    def _candidates(self, query: Any) -> list[Registered]:
        if query.name:
            entry = self._by_name.get(query.name)
            return [entry] if entry else []
        groups = [self._by_group.get(group, {}) for group in self.kind.wanted_groups(query)]
        return list(min(groups, key=len, default=self._by_name).values())

    def __iter__(self) -> Iterator[tuple[str, Registered]]:
        return iter(tuple(self._by_name.items()))

    def __len__(self) -> int:
        return len(self._by_name)


def _visible(entry: Registered | None) -> Any:
    return entry.message if entry is not None and not entry.gone else None
