"""The tracer provider of a process, on top of the sender.

One decision to know: the platform's parts continue the traces of their callers and begin none by themselves (set
`roots=True` where a person or a demo begins one): housekeeping would push the users' traces out of every collector.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from opentelemetry import trace

from meshwright.core import grpc as mesh_grpc
from meshwright.core import logs
from meshwright.core.identity import IdentitySource, part_id
from meshwright.core.settings import ServiceSettings
from meshwright.core.telemetry import metrics, spans
from meshwright.core.telemetry.native import NativeSpan, Value, encode
from meshwright.core.telemetry.records import Records
from meshwright.core.telemetry.sender import Sender

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_LOGS_SECONDS = 1.0
_METRICS_EVERY = 15  # rounds of logs


def setup(part: str, settings: ServiceSettings, identity: IdentitySource | None) -> Telemetry:
    """Return the telemetry of a service as its settings say; enter it as a context."""
    return Telemetry(part, settings.otlp, identity, settings.trust_domain)


def resource(part: str, service: str | None = None) -> dict[str, Value]:
    """Return what names this process in telemetry."""
    return {
        "service.name": service or f"meshwright-{part}",
        "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
        "service.namespace": "meshwright" if service is None else "default",
    }


class Telemetry:
    """`async with Telemetry(part, otlp, identity, trust_domain):`; does nothing when `otlp` is None.

    `otlp` is the collector's host:port (or unix:/path); it must have the collector's identity. `service` names the
    resource when the process isn't a part of the platform.
    """

    def __init__(
        self,
        part: str,
        otlp: str | None,
        identity: IdentitySource | None,
        trust_domain: str,
        *,
        service: str | None = None,
        roots: bool = False,
    ) -> None:
        self.resource = resource(part, service)
        self._otlp, self._identity, self._trust_domain, self._roots = otlp, identity, trust_domain, roots
        self._sender: Sender | None = None
        self._channel: mesh_grpc.Channel | None = None
        self._provider: TracerProvider | None = None
        self._records = Records(self.resource)
        self._reporting: asyncio.Task[None] | None = None
        self._stop_logs: Callable[[], None] = lambda: None
        self._native_spans = contextlib.AsyncExitStack()

    def export_native_spans(self, finished: Sequence[NativeSpan]) -> None:
        """Send spans that Rust finished; dropped when no collector is named."""
        if self._sender and finished:
            self._sender.offer(encode(finished, self.resource))

    async def __aenter__(self) -> Self:
        """Become the process's tracer provider."""
        if self._otlp is None:
            return self
        peer = part_id(self._trust_domain, "collector") if self._identity else None
        self._channel = mesh_grpc.Channel(self._otlp, self._identity, peer=peer, traced=False)
        self._sender = Sender(self._channel)
        await self._sender.start()
        self._provider = await asyncio.to_thread(self._make_provider, self._sender)
        trace.set_tracer_provider(self._provider)
        self._stop_logs = logs.forward(self._records)
        self._reporting = asyncio.create_task(self._report(self._sender), name="telemetry reports")
        await self._native_spans.enter_async_context(spans.drained(self.export_native_spans))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_: TracebackType | None
    ) -> None:
        """Send what is left, for a short while."""
        if self._provider:
            await asyncio.to_thread(self._provider.shutdown)
        await self._native_spans.aclose()
        if self._reporting:
            self._reporting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reporting
        self._stop_logs()
        if self._sender:
            self._report_once(self._sender, with_metrics=True)
            await self._sender.stop()
        if self._channel:
            with contextlib.suppress(Exception):
                await self._channel.close()

    async def _report(self, sender: Sender) -> None:
        for turn in itertools.count():
            self._report_once(sender, with_metrics=turn % _METRICS_EVERY == 0)
            await asyncio.sleep(_LOGS_SECONDS)

    def _report_once(self, sender: Sender, *, with_metrics: bool) -> None:
        if sender.away:
            return  # the queue's room is for spans then; lines wait here, and counts don't get lost
        request = self._records.take()
        if request is not None:
            sender.offer(request)
        if with_metrics:
            sender.offer(metrics.encode(self.resource))

    def _make_provider(self, sender: Sender) -> TracerProvider:
        # The SDK costs start time; a process without a collector never pays for it.
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
        from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased

        class Exporter(SpanExporter):
            """Encodes on the SDK's thread; never waits for the network."""

            def export(self, spans: Sequence[Any]) -> SpanExportResult:
                sender.offer(encode_spans(spans))
                return SpanExportResult.SUCCESS

        provider = TracerProvider(
            sampler=ParentBased(ALWAYS_ON if self._roots else ALWAYS_OFF), resource=Resource(self.resource)
        )
        provider.add_span_processor(BatchSpanProcessor(Exporter(), max_queue_size=4096, schedule_delay_millis=500))
        return provider
