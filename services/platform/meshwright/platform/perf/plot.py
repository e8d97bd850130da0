"""Plots as SVG text: distributions of latencies, of one or several runs together.

One decision to know: the percentile plot's horizontal axis goes by nines, as HDR histograms are drawn: the tail, which
is what differs, gets as much room as the middle.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 880, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 16, 44
_SHARES = (0, 50, 75, 90, 99, 99.9, 99.99, 99.999)
_MOST_NINES = 5


@dataclass(frozen=True, slots=True)
class Series:
    """One result: (from, to, count) of its latencies in seconds."""

    name: str
    buckets: Sequence[tuple[float, float, int]]

    @property
    def count(self) -> int:
        """How many latencies."""
        return sum(count for _, _, count in self.buckets)


def series(name: str, details: dict[str, Any]) -> Series | None:
    """Return the distribution in a result's details, None when there is none."""
    data = details.get("DurationHistogram", {}).get("Data", [])
    try:
        buckets = [(float(part["Start"]), float(part["End"]), int(part["Count"])) for part in data]
    except (KeyError, TypeError, ValueError):
        return None
    return Series(name, buckets) if buckets else None


def distribution(all_: Sequence[Series]) -> str:
    """How often each latency came: a density over a logarithmic axis, each series scaled to its own requests."""
    ticks, low, high = _decades(all_)
    curves = [_smoothed(one, low, high) for one in all_]
    top = max(value for curve in curves for _, value in curve) or 1.0

    def x(seconds: float) -> float:
        return _LEFT + (math.log10(seconds) - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)

    def y(share: float) -> float:
        return HEIGHT - _BOTTOM - share / top * (HEIGHT - _TOP - _BOTTOM)

    parts = [_tick_x(x(tick), _time(tick)) for tick in ticks]
    for share in _steps(top):
        parts.append(_tick_y(y(share), f"{100 * share:.3g}%"))
    for index, curve in enumerate(curves):
        points = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in curve)
        base = f"{y(0):.1f}"
        area = f"{x(curve[0][0]):.1f},{base} {points} {x(curve[-1][0]):.1f},{base}"
        parts.append(f'<polygon class="area s{index % 6}" points="{area}"/>')
        parts.append(f'<polyline class="line s{index % 6}" points="{points}"/>')
    return _svg("Distribution of latencies: share of requests by latency", parts, "latency", "share of requests")


def percentiles(all_: Sequence[Series]) -> str:
    """Which latency how many requests stayed below; the axis goes by nines."""
    ticks, low, high = _decades(all_)
    nines = min(_MOST_NINES, max(math.log10(max(one.count, 10)) for one in all_))

    def x(share: float) -> float:
        reached = min(nines, -math.log10(max(1 - share / 100, 1e-9)))
        return _LEFT + reached / nines * (WIDTH - _LEFT - _RIGHT)

    def y(seconds: float) -> float:
        return HEIGHT - _BOTTOM - (math.log10(seconds) - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    known = [share for share in _SHARES if -math.log10(max(1 - share / 100, 1e-9)) <= nines + 1e-9]
    parts = [_tick_x(x(share), f"{share:g}%") for share in known]
    parts += [_tick_y(y(tick), _time(tick)) for tick in ticks]
    for index, one in enumerate(all_):
        below, points = 0, []
        for _, end, count in one.buckets:
            points.append(f"{x(100 * below / one.count):.1f},{y(end):.1f}")
            below += count
            points.append(f"{x(100 * below / one.count):.1f},{y(end):.1f}")
        parts.append(f'<polyline class="line s{index % 6}" points="{" ".join(points)}"/>')
    return _svg("Latency by percentile", parts, "requests", "latency")


def _decades(all_: Sequence[Series]) -> tuple[list[float], float, float]:
    """Ticks at 1, 2 and 5 of each decade (fewer when there are many), and the axis' ends as powers of ten."""
    shortest = min(one.buckets[0][0] for one in all_)
    longest = max(one.buckets[-1][1] for one in all_)
    low, high = math.log10(shortest * 0.8), math.log10(longest * 1.15)
    steps = (1,) if high - low > 4 else (1, 2, 5) if high - low < 2.5 else (1, 3)
    ticks = [step * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for step in steps]
    return [tick for tick in ticks if low <= math.log10(tick) <= high], low, high


def _smoothed(one: Series, low: float, high: float, points: int = 160) -> list[tuple[float, float]]:
    """Return (latency, share near it): buckets as narrow bells, so that their edges don't draw teeth."""
    width = (high - low) / points
    spread = 1.6 * width
    values = [0.0] * (points + 1)
    for start, end, count in one.buckets:
        centre = (math.log10(start) + math.log10(end)) / 2
        first = max(0, math.floor((centre - 4 * spread - low) / width))
        last = min(points, math.ceil((centre + 4 * spread - low) / width))
        bells = [math.exp(-(((low + at * width - centre) / spread) ** 2) / 2) for at in range(first, last + 1)]
        whole = sum(bells) or 1.0
        for at, bell in zip(range(first, last + 1), bells, strict=True):
            values[at] += count / one.count * bell / whole
    return [(10 ** (low + at * width), value) for at, value in enumerate(values)]


def _steps(top: float) -> list[float]:
    rough = top / 4
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough)
    return [step * number for number in range(1, int(top / step) + 1)]


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size * 0.9999:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _tick_x(at: float, label: str) -> str:
    bottom = HEIGHT - _BOTTOM
    return (
        f'<line class="grid" x1="{at:.1f}" y1="{_TOP}" x2="{at:.1f}" y2="{bottom}"/>'
        f'<text x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{label}</text>'
    )


def _tick_y(at: float, label: str) -> str:
    return (
        f'<line class="grid" x1="{_LEFT}" y1="{at:.1f}" x2="{WIDTH - _RIGHT}" y2="{at:.1f}"/>'
        f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{label}</text>'
    )


def _svg(title: str, parts: Sequence[str], below: str, beside: str) -> str:
    bottom = HEIGHT - _BOTTOM
    axes = (
        f'<line class="axis" x1="{_LEFT}" y1="{bottom}" x2="{WIDTH - _RIGHT}" y2="{bottom}"/>'
        f'<text class="title" x="{WIDTH - _RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{below}</text>'
        f'<text class="title" x="{_LEFT + 6}" y="{_TOP + 8}">{beside}</text>'
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}">'
        f"<title>{html.escape(title)}</title>{''.join(parts)}{axes}</svg>"
    )
