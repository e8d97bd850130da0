"""Builds the collector top to bottom: identity, stores, forwarding, server, admin."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc

from meshwright.api.collector.v1 import collector_pb2_grpc
from meshwright.core import health, identity, service
from meshwright.core.telemetry import resource, spans
from meshwright.platform.collector import otlp
from meshwright.platform.collector.forward import forwarding
from meshwright.platform.collector.logs import LogStore
from meshwright.platform.collector.metrics import MetricStore
from meshwright.platform.collector.query import Query
from meshwright.platform.collector.settings import CollectorSettings
from meshwright.platform.collector.traces import TraceStore

_log = structlog.get_logger(__name__)


def rules(trust_domain: str) -> Sequence[tuple[str, Sequence[str]]]:
    """Any identity of the mesh may send telemetry; only the administrator may read it: it holds users' requests."""
    return (
        ("/opentelemetry.proto.collector.", (f"spiffe://{trust_domain}/*",)),
        ("/meshwright.collector.v1.CollectorQuery/", (identity.part_id(trust_domain, "admin"),)),
    )


async def run(settings: CollectorSettings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set."""
    state = health.Health("server")
    traces, records, metrics = (
        TraceStore(settings.max_traces),
        LogStore(settings.max_logs),
        MetricStore(settings.max_points),
    )
    async with service.begun(settings, state) as own:
        forwarder = await own.stack.enter_async_context(forwarding(settings.otlp_endpoint))
        received = otlp.TraceService(traces, forwarder)
        server = own.server(rules(settings.trust_domain))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(received, server)
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(otlp.LogsService(records, forwarder), server)
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(otlp.MetricsService(metrics, forwarder), server)
        collector_pb2_grpc.add_CollectorQueryServicer_to_server(Query(traces, records, metrics, forwarder), server)
        if settings.otlp is None:  # else its own spans go where it was told to send them
            await own.stack.enter_async_context(spans.drained(received.own(resource(settings.part))))
        address = await own.serve(server)
        state.set("server", ok=True)
        _log.info("serving", address=address)
        await stop.wait()
