"""The OTLP services (opentelemetry.proto.collector.*.v1): take what mesh identities send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from meshwright.core.telemetry import native, spans
from meshwright.core.telemetry.native import Value
from meshwright.platform.collector.forward import Forwarder
from meshwright.platform.collector.logs import LogStore
from meshwright.platform.collector.metrics import MetricStore
from meshwright.platform.collector.traces import TraceStore


class TraceService(trace_service_pb2_grpc.TraceServiceServicer):
    """Spans into the trace store."""

    def __init__(self, store: TraceStore, forwarder: Forwarder | None) -> None:
        self._store, self._forwarder = store, forwarder

    async def Export(self, request: trace_service_pb2.ExportTraceServiceRequest, context: Any) -> Any:
        """Keep every span."""
        self._take(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    def own(self, resource: Mapping[str, Value]) -> spans.Take:
        """Return what takes the spans of this process itself, which needs no network to come here."""
        return lambda finished: self._take(native.encode(finished, resource))

    def _take(self, request: trace_service_pb2.ExportTraceServiceRequest) -> None:
        for batch in request.resource_spans:
            self._store.add(batch)
        if self._forwarder:
            self._forwarder.put("trace", request)


class LogsService(logs_service_pb2_grpc.LogsServiceServicer):
    """Records into the log ring."""

    def __init__(self, store: LogStore, forwarder: Forwarder | None) -> None:
        self._store, self._forwarder = store, forwarder

    async def Export(self, request: logs_service_pb2.ExportLogsServiceRequest, context: Any) -> Any:
        """Keep every record."""
        for batch in request.resource_logs:
            self._store.add(batch)
        if self._forwarder:
            self._forwarder.put("logs", request)
        return logs_service_pb2.ExportLogsServiceResponse()


class MetricsService(metrics_service_pb2_grpc.MetricsServiceServicer):
    """Points into the metric store."""

    def __init__(self, store: MetricStore, forwarder: Forwarder | None) -> None:
        self._store, self._forwarder = store, forwarder

    async def Export(self, request: metrics_service_pb2.ExportMetricsServiceRequest, context: Any) -> Any:
        """Keep the latest point of every stream."""
        for batch in request.resource_metrics:
            self._store.add(batch)
        if self._forwarder:
            self._forwarder.put("metrics", request)
        return metrics_service_pb2.ExportMetricsServiceResponse()
