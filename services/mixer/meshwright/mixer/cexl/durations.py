"""Durations as Go writes them (`1.5s`, `1h30m`, `250ms`), in nanoseconds."""

from __future__ import annotations

import re
from decimal import Decimal

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_WHOLE = re.compile(rf"([+-]?)((?:{_PART.pattern})+)")
_INT64 = 2**63


def parse_duration(text: str) -> int | None:
    """Nanoseconds of a duration such as "1.5s"; None when it isn't one or doesn't fit in 64 bits."""
    if text == "0":
        return 0
    match = _WHOLE.fullmatch(text) if len(text) <= 64 else None
    if match is None:
        return None
    total = sum(int(Decimal(number) * _UNITS[unit]) for number, unit in _PART.findall(match.group(2)))
    nanoseconds = -total if match.group(1) == "-" else total
    return nanoseconds if -_INT64 <= nanoseconds < _INT64 else None
