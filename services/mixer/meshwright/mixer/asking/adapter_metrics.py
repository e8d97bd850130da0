"""Metrics that adapters make for themselves, in mixer's registry under the adapter's name.

One decision to know: label values come from adapters, so their number is bounded here, and a handler's series go with
the handler.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import prometheus_client

from meshwright.mixer.adapter import v1

SERIES = 1000
"""Combinations of label values that one handler may have in one metric."""
OTHER = "other"
_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_Made = TypeVar("_Made", prometheus_client.Counter, prometheus_client.Gauge, prometheus_client.Histogram)


class AdapterMetrics:
    """One a process: all metrics of all adapters."""

    def __init__(self, registry: prometheus_client.CollectorRegistry = prometheus_client.REGISTRY) -> None:
        self._registry = registry
        self._made: dict[str, Any] = {}
        self._lock = threading.Lock()

    def of(self, adapter: str, handler: str) -> HandlerMetrics:
        """What one handler is lent."""
        return HandlerMetrics(self, re.sub(r"[^a-zA-Z0-9]+", "_", adapter), handler)

    def made(
        self, full: str, make: Callable[[prometheus_client.CollectorRegistry], _Made], labels: Sequence[str]
    ) -> _Made:
        """The metric of that name, made when it is first asked for."""
        with self._lock:
            known = self._made.get(full)
            if known is None:
                known = self._made[full] = make(self._registry)
            if known._labelnames != ("handler", *labels):
                raise ValueError(f"metric {full} has the labels {known._labelnames[1:]}: give the same ones each time")
            return cast(_Made, known)


class HandlerMetrics:
    """Implements the SDK's `Metrics` for one handler."""

    def __init__(self, metrics: AdapterMetrics, adapter: str, handler: str) -> None:
        self._metrics, self._adapter, self._handler = metrics, adapter, handler
        self._series: dict[str, set[tuple[str, ...]]] = {}
        self._used: dict[str, Any] = {}

    def counter(self, name: str, documentation: str, **labels: str) -> v1.Counter:
        """The counter of these labels' values."""
        full = self._full(name)

        def make(registry: prometheus_client.CollectorRegistry) -> prometheus_client.Counter:
            return prometheus_client.Counter(full, documentation, ["handler", *labels], registry=registry)

        return self._child(full, self._metrics.made(full, make, [*labels]), labels)

    def gauge(self, name: str, documentation: str, **labels: str) -> v1.Gauge:
        """The gauge of these labels' values."""
        full = self._full(name)

        def make(registry: prometheus_client.CollectorRegistry) -> prometheus_client.Gauge:
            return prometheus_client.Gauge(full, documentation, ["handler", *labels], registry=registry)

        return self._child(full, self._metrics.made(full, make, [*labels]), labels)

    def histogram(self, name: str, documentation: str, *, buckets: Sequence[float] = (), **labels: str) -> v1.Histogram:
        """The histogram of these labels' values."""
        full = self._full(name)

        def make(registry: prometheus_client.CollectorRegistry) -> prometheus_client.Histogram:
            bounds = tuple(buckets) or _BOUNDS
            return prometheus_client.Histogram(
                full, documentation, ["handler", *labels], buckets=bounds, registry=registry
            )

        return self._child(full, self._metrics.made(full, make, [*labels]), labels)

    def close(self) -> None:
        """Remove the handler's series."""
        for metric in self._used.values():
            metric.remove_by_labels({"handler": self._handler})

    def _full(self, name: str) -> str:
        return f"meshwright_mixer_adapter_{self._adapter}_{name}"

    def _child(self, full: str, metric: _Made, labels: dict[str, str]) -> _Made:
        self._used[full] = metric
        series = self._series.setdefault(full, set())
        values = tuple(map(str, labels.values()))
        if values not in series:
            if len(series) >= SERIES:
                values = (OTHER,) * len(values)
            series.add(values)
        return metric.labels(self._handler, *values)
