"""Answers by what they were made from: bounded, the least recently used leaves first."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from meshwright.mixer.client.encoding import Attributes
from meshwright.mixer.client.references import References

T = TypeVar("T")
_Key = tuple[str, References, tuple[Hashable, ...]]


class ReferenceCache(Generic[T]):
    """Each entry belongs to a group, such as a quota's name; requests find it by the values of what it refers to."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: OrderedDict[_Key, T] = OrderedDict()
        self._shapes: dict[str, Counter[References]] = {}

    def __len__(self) -> int:
        """How many entries there are."""
        return len(self._entries)

    def find(self, attributes: Attributes, group: str = "") -> Iterator[tuple[_Key, T]]:
        """All entries that fit the request: one, if the server reads the same for the same request."""
        for references in [*self._shapes.get(group, ())]:
            values = references.values(attributes)
            key = (group, references, values) if values is not None else None
            if key is not None and key in self._entries:
                self._entries.move_to_end(key)
                yield key, self._entries[key]

    def put(self, references: References, attributes: Attributes, entry: T, group: str = "") -> None:
        """Keep an entry in place of the one that is the same request's."""
        values = references.values(attributes)
        if self._most <= 0 or values is None:
            return
        key = (group, references, values)
        if key not in self._entries:
            self._shapes.setdefault(group, Counter())[references] += 1
        self._entries[key] = entry
        self._entries.move_to_end(key)
        while len(self._entries) > self._most:
            self.drop(next(iter(self._entries)))

    def drop(self, key: _Key) -> None:
        """Forget an entry, and with the last of its kind what such entries refer to."""
        if self._entries.pop(key, None) is None:
            return
        group, references, _ = key
        shapes = self._shapes[group]
        shapes[references] -= 1
        if not shapes[references]:
            del shapes[references]
            if not shapes:
                del self._shapes[group]
