"""What a benchmark says: our figure, the floor's or peer's, their ratio, and under which conditions."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

BUSY = 1.5  # a floor this many times dearer than on a quiet core says that the machine was not quiet


class Busy(Exception):  # noqa: N818 - a condition of the machine, not a fault
    """The floor cost too much: the machine was too busy for the figures to mean anything."""


@dataclass(frozen=True)
class Result:
    """`ratio` is our cost ÷ the floor's when lower is better, our rate ÷ the peer's when higher is."""

    name: str
    ours: float
    against: float
    unit: str
    better: Literal["lower", "higher"]
    cpu_us: dict[str, float]
    conditions: dict[str, Any] = field(default_factory=dict)
    goal: float | None = None
    beside: Sequence[Result] = ()
    """What the same run has measured beside it."""

    @property
    def meets_goal(self) -> bool | None:
        """Whether the ratio is as good as its goal; None without one."""
        if self.goal is None:
            return None
        return self.ratio >= self.goal if self.better == "higher" else self.ratio <= self.goal

    @property
    def ratio(self) -> float:
        """Our figure over the other's."""
        return self.ours / self.against

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for --json."""
        return {
            "name": self.name,
            "ours": self.ours,
            "against": self.against,
            "unit": self.unit,
            "ratio": round(self.ratio, 3),
            "better": self.better,
            "goal": self.goal,
            "meets_goal": self.meets_goal,
            "cpu_us": self.cpu_us,
            "conditions": self.conditions,
            "beside": [result.as_dict() for result in self.beside],
        }

    def __str__(self) -> str:
        """Lines for people."""
        goal = "" if self.goal is None else f"; goal {self.goal:g}, {'met' if self.meets_goal else 'missed'}"
        lines = [
            f"{self.name}: ours {self.ours:.1f} {self.unit}, against {self.against:.1f} {self.unit}, "
            f"ratio {self.ratio:.2f} ({self.better} is better{goal})",
            *(f"  {who}: {cost:.1f} µs CPU an operation" for who, cost in self.cpu_us.items()),
            *(f"  {name}: {value}" for name, value in self.conditions.items()),
            *map(str, self.beside),
        ]
        return "\n".join(lines)


def interleave(rounds: int, sides: Sequence[Callable[[], float]]) -> list[list[float]]:
    """Run the sides in turn, so that a busy moment hits all of them; return each side's figures."""
    figures: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for side, series in zip(sides, figures, strict=True):
            series.append(side())
    return figures


def median(series: Sequence[float]) -> float:
    """Return the middle figure."""
    return statistics.median(series)


def require_quiet(what: str, measured: float, quiet: float) -> None:
    """Raise Busy when a floor costs more than it may."""
    if measured > BUSY * quiet:
        raise Busy(
            f"machine too busy: the floor ({what}) cost {measured:.0f} µs, on a quiet core {quiet:.0f}; "
            f"more than {BUSY} times that means nothing"
        )


def machine() -> dict[str, Any]:
    """Say where the figures come from."""
    return {
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }
