"""Measurements → one OTLP metrics request: sums and histograms with delta temporality, for this batch alone.

Redelivered measurements are data points of their own, marked, so that they never blur what is known to be counted once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import timedelta

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
)

from meshwright.mixer.adapter import v1
from meshwright.mixer.adapters.opentelemetry import values
from meshwright.mixer.adapters.opentelemetry.parameters import MetricDefinition

_DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
_UNITS = {
    "us": timedelta(microseconds=1),
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
}


class Definitions:
    """Finds how an instance is exported; one without a definition is a counter of its own name."""

    def __init__(self, definitions: Iterable[MetricDefinition]) -> None:
        self._known = {definition.instance: definition for definition in definitions}

    def of(self, instance: str) -> MetricDefinition:
        """The definition of the instance `name.namespace`."""
        name = instance.rpartition(".")[0]
        found = self._known.get(instance) or self._known.get(name)
        return found or MetricDefinition(instance=instance, name=name)


def request(entries: Sequence[v1.Metric], definitions: Definitions, instance: str) -> ExportMetricsServiceRequest:
    """One request for all measurements of a batch; `instance` names the mixer replica."""
    by_metric: dict[str, list[v1.Metric]] = defaultdict(list)
    for entry in entries:
        by_metric[entry.instance].append(entry)
    metrics = [_metric(definitions.of(name), by_metric[name]) for name in sorted(by_metric)]
    return ExportMetricsServiceRequest(
        resource_metrics=[
            ResourceMetrics(
                resource=values.resource(instance),
                scope_metrics=[ScopeMetrics(scope=values.SCOPE, metrics=metrics)],
            )
        ]
    )


def _metric(definition: MetricDefinition, entries: Sequence[v1.Metric]) -> Metric:
    series: dict[bytes, list[v1.Metric]] = defaultdict(list)
    for entry in entries:
        labels = values.attributes(_labels(entry))
        series[b"\0".join(label.SerializeToString() for label in labels)].append(entry)
    metric = Metric(name=definition.name, unit=definition.unit, description=definition.description)
    if definition.kind == "COUNTER":
        metric.sum.aggregation_temporality = _DELTA
        metric.sum.is_monotonic = True
        metric.sum.data_points.extend(_sum(definition, group) for group in series.values())
    else:
        metric.histogram.aggregation_temporality = _DELTA
        metric.histogram.data_points.extend(_histogram(definition, group) for group in series.values())
    return metric


def _labels(entry: v1.Metric) -> dict[str, v1.Value]:
    return {**entry.dimensions, **entry.monitored_resource_dimensions, **values.marks([entry.origin])}


def _number(definition: MetricDefinition, value: int | float | timedelta) -> int | float:
    return value / _UNITS.get(definition.unit, _UNITS["s"]) if isinstance(value, timedelta) else value


def _sum(definition: MetricDefinition, group: Sequence[v1.Metric]) -> NumberDataPoint:
    total = sum(_number(definition, entry.value) for entry in group)
    start, end = _span(group)
    point = NumberDataPoint(attributes=values.attributes(_labels(group[0])))
    point.start_time_unix_nano, point.time_unix_nano = start, end
    if isinstance(total, int):
        point.as_int = total
    else:
        point.as_double = total
    return point


def _histogram(definition: MetricDefinition, group: Sequence[v1.Metric]) -> HistogramDataPoint:
    numbers = [float(_number(definition, entry.value)) for entry in group]
    counts = [0] * (len(definition.bounds) + 1)
    for number in numbers:
        counts[bisect_left(definition.bounds, number)] += 1
    start, end = _span(group)
    return HistogramDataPoint(
        attributes=values.attributes(_labels(group[0])),
        start_time_unix_nano=start,
        time_unix_nano=end,
        count=len(numbers),
        sum=sum(numbers),
        min=min(numbers),
        max=max(numbers),
        bucket_counts=counts,
        explicit_bounds=definition.bounds,
    )


def _span(group: Sequence[v1.Metric]) -> tuple[int, int]:
    """The time that a delta covers: from the first record to just after the last."""
    times = [values.nanoseconds(entry.origin.time) for entry in group]
    return min(times), max(times) + 1
