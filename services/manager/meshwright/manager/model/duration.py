"""Lengths of time as configuration writes them: ``1.5s``, ``250ms``, ``1h30m``. Validated ones are seconds.

One decision to know: a bare number is refused. Istio reads it as nothing at all, people as seconds or milliseconds.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

_PART = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
MAX_SECONDS = 315_576_000_000.0  # ten thousand years: the most that google.protobuf.Duration holds


def seconds(text: Any) -> float:
    """Read a duration (Go's `time.ParseDuration`, which protobuf's JSON form is a part of), negative ones excepted."""
    if not isinstance(text, str) or len(text) > 64 or not (text == "0" or _WHOLE.fullmatch(text)):
        raise ValueError(f"{text!r} isn't a length of time: write a number and its unit, such as 1.5s, 250ms or 1h30m")
    found = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
    if found > MAX_SECONDS:
        raise ValueError(f"{text} is more than {MAX_SECONDS:.0f}s, the longest that proxies know")
    return round(found, 9)


def _milliseconds(value: float) -> float:
    if value < 0.001 or abs(value * 1000 - round(value * 1000)) > 1e-6:
        raise ValueError(f"is {value:g}s: write whole milliseconds, 1ms or more")
    return value


Duration = Annotated[float, BeforeValidator(seconds), Field(ge=0)]
"""Seconds; zero is allowed."""

Period = Annotated[float, BeforeValidator(lambda value: _milliseconds(seconds(value)))]
"""Seconds, in whole milliseconds and at least one."""
