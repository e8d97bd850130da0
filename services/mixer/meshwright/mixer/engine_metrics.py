"""The engine's counters as Prometheus metrics: read from Rust when somebody asks, never counted twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

PREFIX = "meshwright_mixer_"
_CHECKS = {"mixer_checks": "mixer", "authorization_checks": "ext_authz"}
_LEVELS = {
    "quota_cells": "Quota cells that this replica keeps.",
    "replies_kept": "Replies of adapters that may be used again.",
    "records_waiting": "Records that the queue hasn't stored yet.",
}
_COVERED = frozenset({"rules", *_CHECKS, *_LEVELS})


class EngineMetrics(Collector):
    """Register with prometheus_client's registry; `stats` is the engine's, `dropped` counts lost spans."""

    def __init__(
        self,
        stats: Callable[[], Mapping[str, int]],
        trials: Callable[[], Mapping[str, int]],
        dropped_spans: Callable[[], int],
    ) -> None:
        self._stats, self._trials, self._dropped = stats, trials, dropped_spans

    def collect(self) -> Iterator[Metric]:
        """All of the engine's counters; checks by the API that asked."""
        stats = self._stats()
        checks = CounterMetricFamily(f"{PREFIX}checks", "Decisions, by the API that asked.", labels=["api"])
        for name, api in _CHECKS.items():
            checks.add_metric([api], stats.get(name, 0))
        yield checks
        for name, description in _LEVELS.items():
            yield GaugeMetricFamily(f"{PREFIX}{name}", description, value=stats.get(name, 0))
        for name in sorted(set(stats) - _COVERED):
            yield _counter(name, stats[name])
        refused = CounterMetricFamily(f"{PREFIX}dry_run_refused", "What dry runs would have refused.", labels=["rule"])
        for rule, count in self._trials().items():
            refused.add_metric([rule], count)
        yield refused
        yield CounterMetricFamily(f"{PREFIX}spans_dropped", "Spans that found no room.", value=self._dropped())

    def describe(self) -> Iterator[Metric]:
        """Nothing ahead of time: names come with the engine's counters."""
        return iter(())


def _counter(name: str, value: int) -> Metric:
    """Times are in seconds, as Prometheus has them."""
    if name.endswith("_nanos"):
        name, seconds = f"{name.removesuffix('_nanos')}_seconds", value / 1e9
        return CounterMetricFamily(f"{PREFIX}{name}", f"The engine's counter {name}.", value=seconds)
    return CounterMetricFamily(f"{PREFIX}{name}", f"The engine's counter {name}.", value=value)
