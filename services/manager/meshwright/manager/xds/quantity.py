"""Durations and shares as Envoy states them."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration

from meshwright.api.envoy.type.v3.percent_pb2 import FractionalPercent


def duration(seconds: float) -> Duration:
    """Return a duration, to the millisecond."""
    made = Duration()
    made.FromMilliseconds(round(seconds * 1000))
    return made


def fraction(percent: float) -> FractionalPercent:
    """Return a share of 100 percent, to a ten-thousandth of a percent."""
    return FractionalPercent(numerator=min(round(percent * 10_000), 1_000_000), denominator=FractionalPercent.MILLION)


def weights(stated: Sequence[int]) -> list[int]:
    """Return shares whose sum Envoy takes (32 bits): larger ones in the same proportions, none of them lost."""
    total = sum(stated)
    return list(stated) if total <= _MAX_SUM else [max(1, weight * (_MAX_SUM // 2) // total) for weight in stated]


_MAX_SUM = (1 << 32) - 1
