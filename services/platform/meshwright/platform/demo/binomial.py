"""The exact interval in which a binomial count lies with a given probability; no approximation, no dependency."""

from __future__ import annotations

import math


def interval(trials: int, probability: float, confidence: float) -> tuple[int, int]:
    """Return the smallest and largest count that leave at most half of 1 - `confidence` outside on each side."""
    tail = (1 - confidence) / 2
    masses = [math.exp(_log_mass(trials, count, probability)) for count in range(trials + 1)]
    return _cut(masses, tail), trials - _cut(masses[::-1], tail)


def _cut(masses: list[float], tail: float) -> int:
    below = 0.0
    for count, mass in enumerate(masses):
        below += mass
        if below > tail:
            return count
    return len(masses) - 1


def _log_mass(trials: int, count: int, probability: float) -> float:
    if probability in (0.0, 1.0):
        return 0.0 if count == trials * probability else -math.inf
    choose = math.lgamma(trials + 1) - math.lgamma(count + 1) - math.lgamma(trials - count + 1)
    return choose + count * math.log(probability) + (trials - count) * math.log1p(-probability)
