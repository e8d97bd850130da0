"""Telemetry that came by OTLP → as few requests as possible: those of one signal in a batch are joined.

One decision to know: an entry leaves as it came, only its resource says which record it was, so that a copy that comes
again can be told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from meshwright.mixer.adapter.v1 import Telemetry
from meshwright.mixer.adapters.opentelemetry import values

MAX_BYTES = 3 << 20
"""Of one request: collectors take messages of 4 MiB."""

_REQUESTS: dict[str, tuple[Any, str]] = {
    "traces": (ExportTraceServiceRequest, "resource_spans"),
    "metrics": (ExportMetricsServiceRequest, "resource_metrics"),
    "logs": (ExportLogsServiceRequest, "resource_logs"),
}


def requests(entries: Sequence[Telemetry]) -> Iterator[tuple[str, Any]]:
    """(signal, request) of all entries, in their order within a signal."""
    for signal, (message, resources) in _REQUESTS.items():
        joined, size = message(), 0
        for entry in entries:
            if entry.signal != signal:
                continue
            if size and size + len(entry.payload) > MAX_BYTES:
                yield signal, joined
                joined, size = message(), 0
            request = message.FromString(entry.payload)
            marks = {**values.marks([entry.origin]), "meshwright.record.id": entry.origin.record_id}
            for resource in getattr(request, resources):
                resource.resource.attributes.extend(values.attributes(marks))
            joined.MergeFrom(request)
            size += len(entry.payload)
        if size:
            yield signal, joined
