"""The adapter object and its handler: one batch is one export of logs, metrics and spans, and what came by OTLP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pydantic

from meshwright.mixer.adapter.v1 import Entry, Handler, Host, LogEntry, Metric, Telemetry, TraceSpan
from meshwright.mixer.adapters.opentelemetry import logs, metrics, spans, telemetry
from meshwright.mixer.adapters.opentelemetry.parameters import Parameters


class ExportHandler:
    """Exports batches over one channel."""

    def __init__(self, channel: Any, parameters: Parameters, host: Host) -> None:
        from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc
        from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc

        self._services: dict[str, Any] = {
            "traces": trace_service_pb2_grpc.TraceServiceStub(channel),
            "metrics": metrics_service_pb2_grpc.MetricsServiceStub(channel),
            "logs": logs_service_pb2_grpc.LogsServiceStub(channel),
        }
        self._definitions = metrics.Definitions(parameters.metrics)
        self._timeout, self._host = parameters.timeout_seconds, host

    async def report(self, batch: Sequence[Entry]) -> None:
        """Export; a partial success counts as taken, because OTLP forbids to send the rejected rest again."""
        for signal, request in self._requests(batch):
            await self._export(signal, request)

    def _requests(self, batch: Sequence[Entry]) -> Iterator[tuple[str, Any]]:
        replica = self._host.replica
        if entries := [entry for entry in batch if isinstance(entry, LogEntry)]:
            yield "logs", logs.request(entries, replica)
        if measurements := [entry for entry in batch if isinstance(entry, Metric)]:
            yield "metrics", metrics.request(measurements, self._definitions, replica)
        traces = spans.request([entry for entry in batch if isinstance(entry, TraceSpan)], replica)
        if traces is not None:
            yield "traces", traces
        yield from telemetry.requests([entry for entry in batch if isinstance(entry, Telemetry)])

    async def _export(self, signal: str, request: Any) -> None:
        try:
            await self._services[signal].Export(request, timeout=self._timeout)
        except grpc.RpcError as error:
            # What the collector can't read it will never read: again and again it would keep out all that comes after.
            if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                raise
            refused = "Exports that the collector refused for what they hold; they aren't sent again."
            self._host.metrics.counter("exports_refused_total", refused, signal=signal).inc()
            self._host.logger.warning("export_refused", signal=signal, reason=str(error.details())[:300])


class OpenTelemetryAdapter:
    """The adapter as entry points name it."""

    name = "opentelemetry"
    templates = frozenset({"logentry", "metric", "otlp", "tracespan"})
    parameters: type[pydantic.BaseModel] = Parameters

    @asynccontextmanager
    async def open(self, parameters: Parameters, host: Host) -> AsyncIterator[Handler]:
        """Export to the handler's own collector, or to mixer's."""
        endpoint = parameters.endpoint or host.otlp
        if endpoint is None:
            raise ValueError("no collector: set the handler's params.endpoint, or start mixer with --otlp")
        yield ExportHandler(host.channel(endpoint, parameters.peer), parameters, host)


ADAPTER = OpenTelemetryAdapter()
