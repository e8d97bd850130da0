"""This process's metrics for OTLP: what `/metrics` shows, encoded as an export request. Pure but for the clock's time.

One decision to know: services count with prometheus_client only, so that both ways out tell the same numbers.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import prometheus_client
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.resource.v1 import resource_pb2

from meshwright.core.conventions import ConventionalMetric
from meshwright.core.telemetry.native import Value, attributes

_STARTED = time.time_ns()
_CUMULATIVE = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE


def encode(
    resource: Mapping[str, Value], registry: Any = prometheus_client.REGISTRY
) -> metrics_service_pb2.ExportMetricsServiceRequest:
    """Return the export request for everything that is registered at this moment."""
    now = time.time_ns()
    encoded = [metric for family in registry.collect() if (metric := _metric(family, now)) is not None]
    scope = metrics_pb2.ScopeMetrics(scope=common_pb2.InstrumentationScope(name="meshwright.core"), metrics=encoded)
    owner = resource_pb2.Resource(attributes=attributes(resource.items()))
    return metrics_service_pb2.ExportMetricsServiceRequest(
        resource_metrics=[metrics_pb2.ResourceMetrics(resource=owner, scope_metrics=[scope])]
    )


def _metric(family: Any, now: int) -> metrics_pb2.Metric | None:
    metric = metrics_pb2.Metric(name=family.name, description=family.documentation, unit=family.unit)
    names: Mapping[str, str] = {}
    if isinstance(family, ConventionalMetric):
        metric.name, metric.unit, names = family.otel_name, family.otel_unit, family.otel_attributes
    match family.type:
        case "counter":
            totals = (sample for sample in family.samples if sample.name.endswith("_total"))
            metric.sum.CopyFrom(
                metrics_pb2.Sum(
                    data_points=_numbers(totals, now), aggregation_temporality=_CUMULATIVE, is_monotonic=True
                )
            )
        case "gauge" | "unknown":
            metric.gauge.CopyFrom(metrics_pb2.Gauge(data_points=_numbers(family.samples, now)))
        case "histogram":
            metric.histogram.CopyFrom(
                metrics_pb2.Histogram(
                    data_points=_histograms(family.samples, names, now), aggregation_temporality=_CUMULATIVE
                )
            )
        case _:  # info, summary: nobody here uses them
            return None
    return metric


def _numbers(samples: Iterable[Any], now: int) -> list[metrics_pb2.NumberDataPoint]:
    return [
        metrics_pb2.NumberDataPoint(
            attributes=attributes(sample.labels.items()),
            start_time_unix_nano=_STARTED,
            time_unix_nano=now,
            as_double=sample.value,
        )
        for sample in samples
    ]


def _histograms(samples: Iterable[Any], names: Mapping[str, str], now: int) -> list[metrics_pb2.HistogramDataPoint]:
    points: dict[tuple[tuple[str, str], ...], list[Any]] = defaultdict(list)
    for sample in samples:
        labels = tuple((names.get(key, key), value) for key, value in sample.labels.items() if key != "le")
        points[labels].append(sample)
    return [_histogram(labels, parts, now) for labels, parts in points.items()]


def _histogram(labels: Iterable[tuple[str, str]], samples: Iterable[Any], now: int) -> metrics_pb2.HistogramDataPoint:
    point = metrics_pb2.HistogramDataPoint(
        attributes=attributes(labels), start_time_unix_nano=_STARTED, time_unix_nano=now
    )
    below = 0
    for sample in samples:  # prometheus_client gives the buckets in order, each with what is in those before it
        if sample.name.endswith("_bucket"):
            point.bucket_counts.append(int(sample.value) - below)
            below = int(sample.value)
            if sample.labels["le"] != "+Inf":
                point.explicit_bounds.append(float(sample.labels["le"]))
            if sample.exemplar is not None:
                point.exemplars.append(_exemplar(sample.exemplar))
        elif sample.name.endswith("_sum"):
            point.sum = sample.value
        elif sample.name.endswith("_count"):
            point.count = int(sample.value)
    return point


def _exemplar(found: Any) -> metrics_pb2.Exemplar:
    return metrics_pb2.Exemplar(
        time_unix_nano=int((found.timestamp or 0) * 1e9),
        as_double=found.value,
        trace_id=bytes.fromhex(found.labels.get("trace_id", "")),
        span_id=bytes.fromhex(found.labels.get("span_id", "")),
    )
