"""A metric's name with its dimensions in it, as the original writes it: ``{{.source}}-{{.destination}}``."""

from __future__ import annotations

import re
from collections.abc import Mapping

from meshwright.mixer.adapter.v1 import Value
from meshwright.mixer.adapters.plain import text

_PART = re.compile(r'\{\{-?\s*(?:\.(?P<name>\w+)|index\s+\.\s+"(?P<key>[^"]+)")\s*-?\}\}')
_FORBIDDEN = re.compile(r"[:|@\s\x00-\x1f]")
MAX_NAME = 512


class NameTemplate:
    """Fills in dimensions: ``{{.NAME}}``, or ``{{index . "NAME"}}`` for names that aren't words.

    ValueError when the text is no template.
    """

    def __init__(self, source: str) -> None:
        self._literals, self._names = [""], list[str]()
        at = 0
        for part in _PART.finditer(source):
            self._literals[-1] += source[at : part.start()]
            self._names.append(part["name"] or part["key"])
            self._literals.append("")
            at = part.end()
        self._literals[-1] += source[at:]
        if any("{{" in literal or "}}" in literal for literal in self._literals):
            raise ValueError(f'{source!r}: between {{{{ and }}}} write .NAME or index . "NAME"')

    def fill(self, dimensions: Mapping[str, Value]) -> str:
        """The name; a dimension that isn't there is left out."""
        filled = self._literals[0]
        for name, literal in zip(self._names, self._literals[1:], strict=True):
            filled += text(dimensions[name]) if name in dimensions else ""
            filled += literal
        return safe(filled)


def safe(name: str) -> str:
    """The name without what ends a name on the wire."""
    return _FORBIDDEN.sub("_", name)[:MAX_NAME]
