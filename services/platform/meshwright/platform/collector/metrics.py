"""The latest point of each metric stream, in memory.

One decision to know: delta sums and histograms (what Envoy and many libraries can send) are added up here, so that a
query sees one running total however a sender counts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping

from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric, ResourceMetrics

from meshwright.api.collector.v1 import collector_pb2 as pb
from meshwright.platform.collector import values

_Key = tuple[str, frozenset[tuple[str, str]], frozenset[tuple[str, str]]]


class MetricStore:
    """Points by name, resource and attributes; the stream that was silent longest goes when the limit is reached."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._points: OrderedDict[_Key, pb.Point] = OrderedDict()

    def __len__(self) -> int:
        """Return how many streams are kept."""
        return len(self._points)

    def add(self, batch: ResourceMetrics) -> None:
        """Take the points of one resource."""
        resource = values.attributes(batch.resource.attributes)
        for scope in batch.scope_metrics:
            for metric in scope.metrics:
                delta = _is_delta(metric)
                for point in _points(metric):
                    point.resource.update(resource)
                    point.service = resource.get("service.name", "")
                    self._keep(point, delta)
        while len(self._points) > self._limit:
            self._points.popitem(last=False)

    def _keep(self, point: pb.Point, delta: bool) -> None:
        key = (point.name, frozenset(point.resource.items()), frozenset(point.attributes.items()))
        before = self._points.get(key)
        if before and delta:
            point.value += before.value
            point.count += before.count
        self._points[key] = point
        self._points.move_to_end(key)

    def find(self, *, name: str = "", attributes: Mapping[str, str] | None = None) -> Iterator[pb.Point]:
        """Yield the points of the metrics with this name that have all these attributes."""
        wanted = set((attributes or {}).items())
        for (named, resource, own), point in self._points.items():
            if (not name or named == name) and wanted <= resource | own:
                yield point


def _is_delta(metric: Metric) -> bool:
    kind = metric.WhichOneof("data")
    if kind not in ("sum", "histogram", "exponential_histogram"):
        return False
    temporality = getattr(metric, kind).aggregation_temporality
    return bool(temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA)


def _points(metric: Metric) -> Iterator[pb.Point]:
    kind = metric.WhichOneof("data")
    if kind is None:
        return
    for point in getattr(metric, kind).data_points:
        answer = pb.Point(
            name=metric.name,
            unit=metric.unit,
            attributes=values.attributes(point.attributes),
            time_unix_nano=point.time_unix_nano,
        )
        if kind in ("sum", "gauge"):
            answer.value = getattr(point, point.WhichOneof("value") or "as_double")
        else:  # histograms and summaries
            answer.value, answer.count = point.sum, point.count
        yield answer
