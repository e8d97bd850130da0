"""What proxies of this mesh don't do of an object in force: said by name, never ignored in silence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from meshwright.core.config import Key
from meshwright.manager.model.meaning import Notice

UNSUPPORTED = "Unsupported"
APPROXIMATED = "Approximated"


def unsupported(key: Key, fields: Iterable[tuple[str, object, str]]) -> Iterator[Notice]:
    """Give a notice for each (field, value, consequence) whose value says something."""
    for field, value, consequence in fields:
        if value:
            yield Notice(key, field, UNSUPPORTED, f"has no effect here: {consequence}")
