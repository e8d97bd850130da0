"""One measurement → one line of the StatsD protocol, and lines → datagrams."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta

from meshwright.mixer.adapter.v1 import Value
from meshwright.mixer.adapters.plain import text
from meshwright.mixer.adapters.statsd.name_template import safe
from meshwright.mixer.adapters.statsd.parameters import Kind

_TAG = str.maketrans({",": "_", "|": "_", "#": "_", "\n": "_"})


def line(
    name: str,
    kind: Kind,
    value: int | float | timedelta,
    rate: float,
    *,
    distribution: str,
    tags: Mapping[str, Value] | None = None,
) -> str:
    """The line, without its end; `distribution` is the type of numbers that are distributed (durations are `ms`)."""
    sign = {"COUNTER": "c", "GAUGE": "g"}.get(kind, "ms" if isinstance(value, timedelta) else distribution)
    number = value / timedelta(milliseconds=1) if isinstance(value, timedelta) else value
    written = f"{name}:{_number(number)}|{sign}"
    if kind == "GAUGE" and number < 0:
        # A sign in front means "change by": a negative level is set by way of zero.
        written = f"{name}:0|g\n{written}"
    if rate < 1 and kind != "GAUGE":
        written += f"|@{rate:g}"
    if tags:
        written += "|#" + ",".join(f"{safe(key)}:{text(tag).translate(_TAG)}" for key, tag in sorted(tags.items()))
    return written


def datagrams(lines: Iterable[str], size: int) -> Iterator[bytes]:
    """The lines in datagrams of at most `size` bytes; a longer line has one of its own."""
    packed = bytearray()
    for each in lines:
        encoded = each.encode()
        if packed and len(packed) + 1 + len(encoded) > size:
            yield bytes(packed)
            packed.clear()
        if packed:
            packed += b"\n"
        packed += encoded
    if packed:
        yield bytes(packed)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6f}".rstrip("0").rstrip(".")
