"""Builds the collector top to bottom: identity, stores, forwarding, server, admin."""

from __future__ import annotations

import asyncio
import contextlib

import structlog
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc

from meshwright.api.collector.v1 import collector_pb2_grpc
from meshwright.core import citadel_identity, health, identity, logs
from meshwright.core.admin import Admin
from meshwright.core.grpc import Authorization
from meshwright.dataplane.grpc import NativeServer
from meshwright.platform.collector import otlp
from meshwright.platform.collector.forward import forwarding
from meshwright.platform.collector.logs import LogStore
from meshwright.platform.collector.metrics import MetricStore
from meshwright.platform.collector.query import Query
from meshwright.platform.collector.settings import CollectorSettings
from meshwright.platform.collector.traces import TraceStore

_log = structlog.get_logger(__name__)


def authorization(trust_domain: str) -> Authorization:
    """Any identity of the mesh may send telemetry; only the administrator may read it: it holds users' requests."""
    return Authorization(
        (
            ("/opentelemetry.proto.collector.", (f"spiffe://{trust_domain}/*",)),
            ("/meshwright.collector.v1.CollectorQuery/", (identity.part_id(trust_domain, "admin"),)),
        )
    )


async def run(settings: CollectorSettings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set."""
    logs.setup("collector", settings.log_level)
    state = health.Health("server")
    traces, records, metrics = (
        TraceStore(settings.max_traces),
        LogStore(settings.max_logs),
        MetricStore(settings.max_points),
    )
    async with contextlib.AsyncExitStack() as stack:
        source = citadel_identity.source(settings)
        await stack.enter_async_context(Admin(settings.admin, state, source))
        if source is not None:
            await stack.enter_async_context(source)
        forwarder = await stack.enter_async_context(forwarding(settings.otlp_endpoint))
        # The native front: telemetry is a small mesh's busiest traffic, and a call on grpcio costs many times more.
        server = NativeServer(settings.listen, source, authorize=authorization(settings.trust_domain).rules)
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(otlp.TraceService(traces, forwarder), server)
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(otlp.LogsService(records, forwarder), server)
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(otlp.MetricsService(metrics, forwarder), server)
        collector_pb2_grpc.add_CollectorQueryServicer_to_server(Query(traces, records, metrics, forwarder), server)
        address = await server.start()
        stack.push_async_callback(server.stop, 2.0)
        state.set("server", ok=True)
        _log.info("serving", address=address)
        await stop.wait()
