"""When to renew something that ends: at half of its life, give or take, and soon after a clock that jumped.

One decision to know: the wall clock decides (certificates are judged by it) and is looked at every few seconds instead
of slept through: a machine that was suspended or had its clock set renews within one look, not when a timer ends.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta

from meshwright.core import clock as clocks

LOOK_SECONDS = 5.0
JITTER = 0.1  # of the half life, so that what was issued together isn't renewed together
BACKWARD = timedelta(seconds=60)  # a clock that went back further may lie before NotBefore


async def half_life(clock: clocks.Clock, not_after: datetime) -> None:
    """Return when it is time to renew what ends at `not_after` and was issued just now."""
    began, began_monotonic = clock.now(), clock.monotonic()
    half = (not_after - began) / 2
    renew = began + half * (1 + random.uniform(-JITTER, JITTER))
    while True:
        now = clock.now()
        elapsed = timedelta(seconds=clock.monotonic() - began_monotonic)
        if now >= renew or now - began < elapsed - BACKWARD:
            return
        await clock.sleep(min(LOOK_SECONDS, (renew - now).total_seconds()))


class Backoff:
    """Delays of retries: doubling, capped, each between half and all of itself so that many don't retry as one."""

    def __init__(self, first: float = 0.2, cap: float = 15.0) -> None:
        self._first, self._cap = first, cap
        self._next = first

    def reset(self) -> None:
        """Begin again after a success."""
        self._next = self._first

    def delay(self) -> float:
        """Return the seconds to wait before the next attempt."""
        current, self._next = self._next, min(self._cap, self._next * 2)
        return current * random.uniform(0.5, 1.0)
