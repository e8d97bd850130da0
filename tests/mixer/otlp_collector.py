"""A real OTLP collector in-process: keeps what it gets, and can be told to refuse."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from meshwright.core import grpc as core_grpc

ADAPTER_SCOPE = "meshwright.mixer.adapters.opentelemetry"


class Collector(logs_service_pb2_grpc.LogsServiceServicer):
    """`async with Collector(identity)`; `address` is where it listens, also after a restart."""

    def __init__(self, identity: Any = None) -> None:
        self.address = "127.0.0.1:0"
        self.logs: list[Any] = []
        self.metrics: list[Any] = []
        self.spans: list[Any] = []
        self.resources: list[Any] = []  # of spans
        self.refuse_metrics: grpc.StatusCode | None = None
        self._identity = identity
        self._server: core_grpc.Server | None = None
        self._changed = asyncio.Event()

    async def start(self) -> None:
        self._server = core_grpc.Server(self.address, self._identity)
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(self, self._server)
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_MetricsSide(self), self._server)
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_TraceSide(self), self._server)
        self.address = await self._server.start()

    async def stop(self) -> None:
        assert self._server is not None
        await self._server.stop(0)

    async def __aenter__(self) -> Collector:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_logs:
            for scope in resource.scope_logs:
                if scope.scope.name == ADAPTER_SCOPE:  # beside it comes what the process tells of itself
                    self.logs += scope.log_records
        self.notify()
        return logs_service_pb2.ExportLogsServiceResponse()

    def notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, condition: Callable[[], bool], seconds: float = 20) -> None:
        """Wait for the condition on what arrived."""
        async with asyncio.timeout(seconds):
            while not condition():
                await self._changed.wait()

    def record_ids(self) -> list[tuple[str, bool]]:
        """(record id, marked as redelivered) of every log record, in order of arrival."""
        return [
            (
                str(attribute(record.attributes, "meshwright.record.id")),
                bool(attribute(record.attributes, "meshwright.redelivered")),
            )
            for record in self.logs
        ]


class _MetricsSide(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def Export(self, request: Any, context: Any) -> Any:
        if self._collector.refuse_metrics is not None:
            await context.abort(self._collector.refuse_metrics, "told to refuse")
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                if scope.scope.name == ADAPTER_SCOPE:
                    self._collector.metrics += scope.metrics
        self._collector.notify()
        return metrics_service_pb2.ExportMetricsServiceResponse()


class _TraceSide(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            self._collector.resources.append(resource.resource)
            for scope in resource.scope_spans:
                self._collector.spans += scope.spans
        self._collector.notify()
        return trace_service_pb2.ExportTraceServiceResponse()


def attribute(attributes: Any, name: str) -> Any:
    """An attribute's value; None when it isn't there."""
    for each in attributes:
        if each.key == name:
            return getattr(each.value, each.value.WhichOneof("value"))
    return None
