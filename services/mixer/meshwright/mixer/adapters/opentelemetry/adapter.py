"""The adapter object and its handler: one batch is one export of logs, then one of metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pydantic

from meshwright.mixer.adapter.v1 import Entry, Handler, Host, LogEntry, Metric
from meshwright.mixer.adapters.opentelemetry import logs, metrics
from meshwright.mixer.adapters.opentelemetry.parameters import Parameters


class ExportHandler:
    """Exports batches over one channel."""

    def __init__(self, channel: Any, parameters: Parameters, instance: str) -> None:
        from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc
        from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc

        self._logs = logs_service_pb2_grpc.LogsServiceStub(channel)
        self._metrics = metrics_service_pb2_grpc.MetricsServiceStub(channel)
        self._definitions = metrics.Definitions(parameters.metrics)
        self._timeout = parameters.timeout_seconds
        self._instance = instance

    async def handle(self, batch: Sequence[Entry]) -> None:
        """Export; a partial success counts as taken, because OTLP forbids to send the rejected rest again."""
        entries = [entry for entry in batch if isinstance(entry, LogEntry)]
        measurements = [entry for entry in batch if isinstance(entry, Metric)]
        if entries:
            await self._logs.Export(logs.request(entries, self._instance), timeout=self._timeout)
        if measurements:
            request = metrics.request(measurements, self._definitions, self._instance)
            await self._metrics.Export(request, timeout=self._timeout)


class OpenTelemetryAdapter:
    """The adapter as entry points name it."""

    name = "opentelemetry"
    templates = frozenset({"logentry", "metric"})
    parameters: type[pydantic.BaseModel] = Parameters

    @asynccontextmanager
    async def open(self, parameters: Parameters, host: Host) -> AsyncIterator[Handler]:
        """Open the channel to the handler's own collector, or to mixer's."""
        endpoint = parameters.endpoint or host.otlp
        if endpoint is None:
            raise ValueError("no collector: set the handler's params.endpoint, or start mixer with --otlp")
        channel = host.channel(endpoint, parameters.peer)
        try:
            yield ExportHandler(channel, parameters, host.instance)
        finally:
            await asyncio.shield(channel.close())


ADAPTER = OpenTelemetryAdapter()
