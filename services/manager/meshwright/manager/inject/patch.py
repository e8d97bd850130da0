"""JSON patches (RFC 6902) from one document to another: maps field by field, lists as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def patch(before: Any, after: Any, path: str = "") -> Iterator[dict[str, Any]]:
    """Yield the operations that make `after` from `before`."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in before.keys() - after.keys():
            yield {"op": "remove", "path": f"{path}/{_escaped(name)}"}
        for name, value in after.items():
            inner = f"{path}/{_escaped(name)}"
            if name not in before:
                yield {"op": "add", "path": inner, "value": value}
            else:
                yield from patch(before[name], value, inner)
    elif before != after:
        yield {"op": "replace", "path": path, "value": after}


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
