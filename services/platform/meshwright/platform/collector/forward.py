"""Hands everything that arrives on to the user's own OTLP endpoint.

One decision to know: the queue is bounded and drops the newest when it is full, counted: a slow or absent endpoint
must cost neither memory nor the senders' time. A request that the endpoint can't take at the moment is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import structlog
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from meshwright.core import errors

QUEUE = 1000  # requests
DEADLINE_SECONDS = 10.0
ATTEMPTS = 5
_RETRIABLE = {
    grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED, grpc.StatusCode.CANCELLED,
}  # fmt: skip  # OTLP 1.x, "Failures": what a client may send again

_log = structlog.get_logger(__name__)


class Forwarder:
    """A queue in front of another collector."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[tuple[str, Any]] = asyncio.Queue(QUEUE)
        self.sent = self.dropped = 0

    def put(self, signal: str, request: Any) -> None:
        """Take a request for `signal` (trace, metrics or logs) without waiting."""
        try:
            self._queue.put_nowait((signal, request))
        except asyncio.QueueFull:
            self.dropped += 1

    async def run(self, channel: grpc.aio.Channel) -> None:
        """Send until cancelled."""
        stubs = {
            "trace": TraceServiceStub(channel),
            "metrics": MetricsServiceStub(channel),
            "logs": LogsServiceStub(channel),
        }
        while True:
            signal, request = await self._queue.get()
            if await self._send(stubs[signal], request):
                self.sent += 1
            else:
                self.dropped += 1

    async def _send(self, stub: Any, request: Any) -> bool:
        for attempt in range(ATTEMPTS):
            try:
                await stub.Export(request, timeout=DEADLINE_SECONDS)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _RETRIABLE:
                    _log.warning("otlp_forward_refused", code=error.code().name, reason=error.details())
                    return False
            else:
                return True
            await asyncio.sleep(min(0.5 * 2**attempt, 5.0))
        _log.warning("otlp_forward_gave_up", attempts=ATTEMPTS)
        return False


@contextlib.asynccontextmanager
async def forwarding(endpoint: str | None) -> AsyncIterator[Forwarder | None]:
    """Run a forwarder to `endpoint`, http://host:port or https://host:port; none for None."""
    if not endpoint:
        yield None
        return
    scheme, separator, target = endpoint.rstrip("/").partition("://")
    if not separator or scheme not in ("http", "https") or ":" not in target:
        raise errors.ConfigError(
            f"{endpoint!r} isn't an OTLP gRPC endpoint",
            field="otlp_endpoint",
            remedy="write http://host:4317, or https://host:4317 for TLS",
        )
    if scheme == "https":
        channel = grpc.aio.secure_channel(target, grpc.ssl_channel_credentials())
    else:
        channel = grpc.aio.insecure_channel(target)
    forwarder = Forwarder()
    async with channel:
        task = asyncio.create_task(forwarder.run(channel), name="otlp forward")
        try:
            yield forwarder
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
