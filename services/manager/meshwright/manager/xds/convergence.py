"""How long a change takes to reach the proxies: from when it was accepted until nine of ten have acknowledged it.

One decision to know: a change counts for a type of resources only when proxies were sent some of that type for it; a
change of routes says nothing about how fast listeners travel. Those count who were connected when it was published.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import Histogram

from meshwright.manager import metrics
from meshwright.manager.xds import types

SHARE = 0.9
MEASURED = (types.CLUSTER, types.LISTENER)
_UNDER_WAY = 64  # changes of one type that may be under way; what proxies never acknowledge is forgotten then


@dataclass(slots=True)
class _Change:
    """One change of one type on its way."""

    began: float
    needed: int
    done: int = 0
    sent: bool = False  # whether anybody was sent something of this type


class Convergence:
    """Told of what is accepted, published and settled; observes durations. Belongs to one event loop."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, histogram: Histogram = metrics.ACKNOWLEDGED_SECONDS
    ) -> None:
        self._clock = clock
        self._histograms = {type_url: histogram.labels(types.short(type_url)) for type_url in MEASURED}
        self._under_way: dict[str, OrderedDict[int, _Change]] = {type_url: OrderedDict() for type_url in MEASURED}
        self._accepted: deque[tuple[int, float]] = deque(maxlen=_UNDER_WAY)

    def now(self) -> float:
        """Return the time that `accepted` wants."""
        return self._clock()

    def accepted(self, revision: int, when: float) -> None:
        """Count a revision's time from `when` on; it may be published already."""
        self._accepted.append((revision, when))
        for changes in self._under_way.values():
            if change := changes.get(revision):
                change.began = min(change.began, when)

    def published(self, revision: int, proxies: int) -> None:
        """Begin to wait for nine tenths of `proxies`."""
        if not proxies:
            return
        began = next((when for accepted, when in self._accepted if accepted == revision), self._clock())
        for changes in self._under_way.values():
            changes[revision] = _Change(began, math.ceil(SHARE * proxies))
            while len(changes) > _UNDER_WAY:
                changes.popitem(last=False)

    def settled(self, type_url: str, before: int, revision: int, acknowledged: int) -> None:
        """Take that a proxy, which stood at revision `before`, has of this type all that `revision` wants.

        `acknowledged` is the revision of what it was last sent of this type.
        """
        changes = self._under_way[type_url]
        for number, change in list(changes.items()):
            if not before < number <= revision:
                continue
            change.done += 1
            change.sent = change.sent or acknowledged >= number
            if change.done >= change.needed:
                del changes[number]
                if change.sent:
                    self._histograms[type_url].observe(self._clock() - change.began)
