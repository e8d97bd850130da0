"""Values as backends take them that know text, numbers, truth values and maps: JSON, MessagePack, lines of text."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from meshwright.mixer.adapter.v1 import Value

_MILLISECOND = timedelta(milliseconds=1)


def plain(value: Value, *, integer_durations: bool = False) -> Any:
    """The value without types of its own.

    Moments are RFC 3339 text in UTC, durations seconds as text ("0.25s") or, with `integer_durations`, whole
    milliseconds; addresses are their usual text, bytes base64.
    """
    match value:
        case bool() | int() | float() | str():
            return value
        case bytes():
            return base64.b64encode(value).decode("ascii")
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case timedelta():
            return value // _MILLISECOND if integer_durations else f"{value.total_seconds():g}s"
        case Mapping():
            return dict(value)
        case _:
            return str(value)


def plain_map(values: Mapping[str, Value], *, integer_durations: bool = False) -> dict[str, Any]:
    """All values of a map without types of their own."""
    return {name: plain(value, integer_durations=integer_durations) for name, value in values.items()}


def text(value: Value) -> str:
    """The value as text, for labels and parts of names; truth values are written small."""
    found = plain(value)
    return str(found).lower() if isinstance(found, bool) else str(found)
