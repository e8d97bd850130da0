"""What became of questions to adapters, as Prometheus metrics: read from Rust when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

PREFIX = "meshwright_mixer_questions"
BOUNDS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Upper bounds in seconds of the guard's buckets (dataplane/crates/checks/src/guard.rs)."""
_BREAKER = {"closed": 0.0, "half_open": 0.5, "open": 1.0}


class QuestionMetrics(Collector):
    """Register with prometheus_client's registry; both functions are those of meshwright.dataplane.policy.Questions."""

    def __init__(self, statistics: Callable[[], Mapping[str, Any]], batches: Callable[[], tuple[int, int]]) -> None:
        self._statistics, self._batches = statistics, batches

    def collect(self) -> Iterator[Metric]:
        """All handlers' numbers, and how many questions entered Python together."""
        label = ["handler"]
        asked = CounterMetricFamily(PREFIX, "Questions that were handed to a handler.", labels=label)
        failed = CounterMetricFamily(
            f"{PREFIX}_failed", "Questions without an answer, by reason.", labels=["handler", "reason"]
        )
        seconds = HistogramMetricFamily(f"{PREFIX}_seconds", "From the question to its answer.", labels=label)
        in_flight = GaugeMetricFamily(f"{PREFIX}_in_flight", "Questions that a handler has.", labels=label)
        breaker = GaugeMetricFamily(f"{PREFIX}_breaker", "0 closed, 0.5 half open, 1 open.", labels=label)
        for handler, each in sorted(self._statistics().items()):
            asked.add_metric([handler], each["asked"])
            for reason, count in each["failures"].items():
                failed.add_metric([handler, reason], count)
            counts = accumulate(each["durations"])
            bounds = [*map(str, BOUNDS), "+Inf"]
            seconds.add_metric([handler], [*zip(bounds, counts, strict=True)], each["duration_micros"] / 1e6)
            in_flight.add_metric([handler], each["in_flight"])
            breaker.add_metric([handler], _BREAKER[each["breaker"]])
        yield from (asked, failed, seconds, in_flight, breaker)
        batches, taken = self._batches()
        yield CounterMetricFamily(f"{PREFIX}_taken", "Questions that entered Python.", value=taken)
        yield CounterMetricFamily(f"{PREFIX}_batches", "Times that questions entered Python.", value=batches)

    def describe(self) -> Iterator[Metric]:
        """Nothing ahead of time: handlers come with policies."""
        return iter(())
