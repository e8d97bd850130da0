"""Attributes as Python values → istio.mixer.v1.CompressedAttributes.

One decision to know: a word that the global dictionary has is never put into a message's own list, because servers look
there first and would then not find what is keyed by the global index.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from meshwright.api.istio.mixer.v1 import attributes_pb2
from meshwright.mixer.client import words as dictionary

AttributeValue = str | int | float | bool | bytes | datetime | timedelta | Mapping[str, str]
"""An attribute's value: its Python type says its type on the wire. IP addresses are bytes of length 4 or 16."""
Attributes = Mapping[str, AttributeValue]


class Words:
    """A message's own words, shared by all attributes that are compressed with it."""

    def __init__(self, known: int = 0) -> None:
        """`known`: how many words of the global dictionary may be used."""
        self._known = known
        self._own: dict[str, int] = {}

    def __iter__(self) -> Iterator[str]:
        """The words, in the order of their indices -1, -2, …"""
        return iter(self._own)

    def index(self, word: str) -> int:
        """The word's index, for which it is added when it is new."""
        index = dictionary.INDICES.get(word, self._known)
        return index if index < self._known else -self._own.setdefault(word, len(self._own)) - 1


def compress(attributes: Attributes, words: Words) -> attributes_pb2.CompressedAttributes:
    """Return the message without its `words`, which are for the caller to add when all is compressed.

    TypeError names the attribute whose value has none of the types.
    """
    message = attributes_pb2.CompressedAttributes()
    for name, value in attributes.items():
        index = words.index(name)
        match value:
            case bool():
                message.bools[index] = value
            case int():
                message.int64s[index] = value
            case float():
                message.doubles[index] = value
            case str():
                message.strings[index] = words.index(value)
            case bytes():
                message.bytes[index] = value
            case datetime():
                message.timestamps[index].FromDatetime(value)
            case timedelta():
                message.durations[index].FromTimedelta(value)
            case Mapping():
                entries = message.string_maps[index].entries
                entries.update({words.index(key): words.index(text) for key, text in value.items()})
            case _:
                raise TypeError(f"attribute {name} is a {type(value).__name__}: give one of {AttributeValue}")
    return message
