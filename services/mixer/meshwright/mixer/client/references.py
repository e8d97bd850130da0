"""Which attributes an answer was made from, and so for which other requests it is the answer too.

One decision to know: an attribute that was absent must be absent as a whole. The original took a map that lacks an
empty key for an absent map, and so answered a request that has headers from the cache of one that had none.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from meshwright.api.istio.mixer.v1 import mixer_pb2
from meshwright.mixer.client import words as dictionary
from meshwright.mixer.client.encoding import Attributes

Key = tuple[str, str | None]
"""An attribute, or an attribute and the key of its map."""
_MISSING = object()


@dataclass(frozen=True, slots=True)
class References:
    """What must be equal, and what must be absent."""

    exact: tuple[Key, ...]
    absent: tuple[Key, ...]

    @classmethod
    def read(cls, message: mixer_pb2.ReferencedAttributes, attributes: Attributes) -> References | None:
        """What an answer to `attributes` says; None when it can't be used for any other request."""
        exact, absent = set(), set()
        for match in message.attribute_matches:
            name = _word(message, match.name)
            if name is None:
                return None
            key: str | None = None
            if isinstance(attributes.get(name), Mapping):
                key = _word(message, match.map_key)
                if key is None:
                    return None
            match match.condition:
                case mixer_pb2.ReferencedAttributes.EXACT:
                    exact.add((name, key))
                case mixer_pb2.ReferencedAttributes.ABSENCE:
                    absent.add((name, key))
                case _:
                    return None
        order = _order
        references = cls(tuple(sorted(exact, key=order)), tuple(sorted(absent, key=order)))
        # An answer that contradicts its own request is nobody's.
        return references if references.values(attributes) is not None else None

    def values(self, attributes: Attributes) -> tuple[Hashable, ...] | None:
        """What identifies a request among those that these references fit; None: they don't fit it."""
        if any(_find(attributes, key) is not _MISSING for key in self.absent):
            return None
        values: list[Hashable] = []
        for key in self.exact:
            value = _find(attributes, key)
            if value is _MISSING:
                return None
            # True, 1 and 1.0 are equal in Python.
            values.append((type(value).__name__, frozenset(value.items()) if isinstance(value, Mapping) else value))
        return tuple(values)


def _find(attributes: Attributes, key: Key) -> Any:
    name, entry = key
    value = attributes.get(name, _MISSING)
    if entry is None or value is _MISSING:
        return value
    # A map that has become something else isn't what was looked into: it is neither the entry nor its absence.
    return value.get(entry, _MISSING) if isinstance(value, Mapping) else _OTHER


_OTHER: Mapping[str, str] = {}


def _order(key: Key) -> tuple[str, str]:
    return key[0], key[1] or ""


def _word(message: mixer_pb2.ReferencedAttributes, index: int) -> str | None:
    words: Any = dictionary.WORDS if index >= 0 else message.words
    position = index if index >= 0 else -index - 1
    return words[position] if position < len(words) else None
