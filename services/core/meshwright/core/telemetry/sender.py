"""OTLP requests on their way to the collector: one bounded queue, one task, one channel.

One decision to know: whoever has telemetry offers it and goes on; a collector that is away or slow costs memory up to
the queue's size, then the newest batches are dropped and counted. Belongs to one event loop; `offer` may be called from
any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import grpc
import prometheus_client
import structlog
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

_log = structlog.get_logger(__name__)

SENT = prometheus_client.Counter("meshwright_telemetry_batches_sent", "OTLP batches that the collector took")
DROPPED = prometheus_client.Counter(
    "meshwright_telemetry_batches_dropped", "OTLP batches dropped: queue full, or refused", ["why"]
)

QUEUE = 256  # batches; one has up to 512 spans
DEADLINE = 5.0  # seconds for one export
FLUSH = 2.0  # seconds that the end of the process waits for the rest
_BACKOFF = (0.1, 0.2, 0.5, 1.0, 2.0)
_RETRIED = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
)


class Sender:
    """Sends what is offered, in order; `channel` is a `meshwright.core.grpc.Channel` to the collector."""

    def __init__(self, channel: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Any] = asyncio.Queue(QUEUE)
        self._exports: dict[type[Any], Callable[..., Any]] = {
            trace_service_pb2.ExportTraceServiceRequest: trace_service_pb2_grpc.TraceServiceStub(channel).Export,
            metrics_service_pb2.ExportMetricsServiceRequest: (
                metrics_service_pb2_grpc.MetricsServiceStub(channel).Export
            ),
            logs_service_pb2.ExportLogsServiceRequest: logs_service_pb2_grpc.LogsServiceStub(channel).Export,
        }
        self._task: asyncio.Task[None] | None = None
        self._unwanted: set[type[Any]] = set()  # kinds that this collector doesn't know, metrics for example
        self.away = False  # whether the collector didn't answer lately

    def offer(self, request: Any) -> None:
        """Queue an export request of a known kind; drop it when the queue is full."""
        with contextlib.suppress(RuntimeError):  # the loop has ended: so has the process, nearly
            self._loop.call_soon_threadsafe(self._put, request)

    async def start(self) -> None:
        """Begin to send."""
        self._task = asyncio.create_task(self._run(), name="telemetry sender")

    async def stop(self) -> None:
        """Send what is left for at most `FLUSH` seconds, then end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH):
                await self._queue.join()
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _put(self, request: Any) -> None:
        try:
            self._queue.put_nowait(request)
        except asyncio.QueueFull:
            DROPPED.labels("queue full").inc()

    async def _run(self) -> None:
        while True:
            request = await self._queue.get()
            try:
                await self._send(request)
            finally:
                self._queue.task_done()

    async def _send(self, request: Any) -> None:
        if type(request) in self._unwanted:
            return
        attempt = 0
        while True:
            try:
                await self._exports[type(request)](request, timeout=DEADLINE)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    self._unwanted.add(type(request))
                    _log.warning("telemetry not wanted", kind=type(request).__name__, reason=error.details())
                    return
                if error.code() not in _RETRIED:
                    DROPPED.labels("refused").inc()
                    _log.warning("telemetry refused", code=error.code().name, reason=error.details())
                    return
                if not self.away:
                    self.away = True
                    _log.warning("collector away", code=error.code().name, reason=error.details())
                await asyncio.sleep(_BACKOFF[min(attempt, len(_BACKOFF) - 1)])
                attempt += 1
            else:
                SENT.inc()
                if self.away:
                    self.away = False
                    _log.info("collector back")
                return
