"""OpenTelemetry's semantic conventions, as `constraints.txt` pins them: what fails, and how a metric is told."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client.metrics_core import Metric

SERVER_FAULTS = frozenset(("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"))
"""The statuses of gRPC that are the server's failures; the others are its callers'."""

_UNITS = {"s": "seconds", "By": "bytes"}


class ConventionalMetric(Metric):
    """A metric of the conventions: in `/metrics` under its Prometheus name, by OTLP under its own.

    `unit` is UCUM's; `attributes` gives the attribute of each label.
    """

    def __init__(self, name: str, documentation: str, kind: str, unit: str, attributes: Mapping[str, str]) -> None:
        suffix = _UNITS[unit]
        super().__init__(f"{name.replace('.', '_')}_{suffix}", documentation, kind, suffix)
        self.otel_name, self.otel_unit, self.otel_attributes = name, unit, attributes
