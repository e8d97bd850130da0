"""The collector keeps what arrives by OTLP within its bounds, answers the administrator only, and hands on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

import fronts
from meshwright.api.collector.v1 import collector_pb2 as pb
from meshwright.api.collector.v1.collector_pb2_grpc import CollectorQueryStub, add_CollectorQueryServicer_to_server
from meshwright.core.grpc import Authorization, Channel, Server
from meshwright.core.identity import StaticIdentity, part_id
from meshwright.platform.collector import app, otlp, values
from meshwright.platform.collector.forward import Forwarder, forwarding
from meshwright.platform.collector.logs import LogStore
from meshwright.platform.collector.metrics import MetricStore
from meshwright.platform.collector.query import Query
from meshwright.platform.collector.traces import SPANS_IN_TRACE, TraceStore
from pki import Pki


def pair(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def spans(trace: int, *names: str, service: str = "shop", **attributes: str) -> ResourceSpans:
    return ResourceSpans(
        resource=Resource(attributes=[pair("service.name", service)]),
        scope_spans=[
            ScopeSpans(
                spans=[
                    Span(
                        trace_id=trace.to_bytes(16),
                        span_id=(index + 1).to_bytes(8),
                        name=name,
                        kind=Span.SPAN_KIND_SERVER,
                        start_time_unix_nano=10**6 - index,
                        attributes=[pair(key, value) for key, value in attributes.items()],
                    )
                    for index, name in enumerate(names)
                ]
            )
        ],
    )


def records(*bodies: str, **attributes: str) -> ResourceLogs:
    return ResourceLogs(
        resource=Resource(attributes=[pair("service.name", "mixer")]),
        scope_logs=[
            ScopeLogs(
                log_records=[
                    LogRecord(
                        body=AnyValue(string_value=body),
                        time_unix_nano=1,
                        attributes=[pair(key, value) for key, value in attributes.items()],
                    )
                    for body in bodies
                ]
            )
        ],
    )


def test_traces_are_found_by_attribute_name_and_id() -> None:
    """A trace is found by its id, by one span's name, and by attributes of one span or its resource."""
    store = TraceStore(10)
    store.add(spans(1, "GET /", "call", path="/a"))
    store.add(spans(1, "check", service="mixer"))
    store.add(spans(2, "GET /", path="/b"))
    assert [trace.trace_id for trace in store.find(attributes={"path": "/a"})] == [f"{1:032x}"]
    assert [trace.trace_id for trace in store.find(span_name="GET /")] == [f"{2:032x}", f"{1:032x}"]
    assert not list(store.find(attributes={"path": "/a", "service.name": "mixer"}))
    (trace,) = store.find(trace_id=f"{1:032x}")
    assert [(span.service, span.name, span.kind) for span in trace.spans] == [
        ("shop", "call", "server"), ("shop", "GET /", "server"), ("mixer", "check", "server"),
    ]  # fmt: skip


def test_traces_are_bounded() -> None:
    """The oldest trace goes at the limit, and one endless trace can't fill the memory."""
    store = TraceStore(2)
    for number in (1, 2, 1, 3):
        store.add(spans(number, "a"))
    assert [trace.trace_id for trace in store.find()] == [f"{3:032x}", f"{1:032x}"]
    assert store.evicted == 1
    store.add(spans(3, *["b"] * (SPANS_IN_TRACE + 10)))
    (trace,) = store.find(trace_id=f"{3:032x}")
    assert len(trace.spans) == SPANS_IN_TRACE


def test_spans_without_a_valid_trace_id_are_ignored() -> None:
    """OTLP requires 16 bytes."""
    store = TraceStore(2)
    store.add(ResourceSpans(scope_spans=[ScopeSpans(spans=[Span(trace_id=b"short", name="x")])]))
    assert len(store) == 0


def test_delta_sums_are_added_up_and_cumulative_ones_replaced() -> None:
    """A query sees one running total however the sender counts."""
    store = MetricStore(10)
    for temporality, name in ((1, "delta"), (2, "cumulative")):
        for value in (3, 4):
            point = metrics_pb2.NumberDataPoint(as_int=value, attributes=[pair("code", "200")])
            metric = metrics_pb2.Metric(
                name=name,
                sum=metrics_pb2.Sum(data_points=[point], aggregation_temporality=temporality, is_monotonic=True),
            )
            store.add(metrics_pb2.ResourceMetrics(scope_metrics=[metrics_pb2.ScopeMetrics(metrics=[metric])]))
    assert [(point.name, point.value) for point in store.find(attributes={"code": "200"})] == [
        ("delta", 7.0), ("cumulative", 4.0),
    ]  # fmt: skip


def test_values_as_text() -> None:
    """Values of every type compare and show as text."""
    array = ArrayValue(values=[AnyValue(int_value=1), AnyValue(string_value="a")])
    assert values.text(AnyValue(bool_value=True)) == "true"
    assert values.text(AnyValue(int_value=-5)) == "-5"
    assert values.text(AnyValue(bytes_value=b"\x01")) == "01"
    assert values.text(AnyValue(array_value=array)) == '[1, "a"]'
    assert values.text(AnyValue()) == ""


@contextlib.asynccontextmanager
async def serving(pki: Pki, logs: LogStore, traces: TraceStore) -> AsyncIterator[str]:
    authorize = Authorization(app.rules("mesh.local"))
    identity = StaticIdentity(pki.part("collector"))
    server = Server("127.0.0.1:0", identity, front=fronts.CURRENT, authorize=authorize)
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(otlp.LogsService(logs, None), server)
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(otlp.TraceService(traces, None), server)
    add_CollectorQueryServicer_to_server(Query(traces, logs, MetricStore(10)), server)
    address = await server.start()
    try:
        yield address
    finally:
        await server.stop(0)


def channel(pki: Pki, address: str, identity: Any) -> Channel:
    return Channel(address, StaticIdentity(identity), peer=part_id("mesh.local", "collector"))


@pytest.mark.usefixtures("grpc_front")
async def test_any_mesh_identity_writes_and_only_the_administrator_reads(pki: Pki) -> None:
    """A workload may send telemetry and may not read it; the admin identity may read it."""
    async with serving(pki, LogStore(3), TraceStore(10)) as address:
        async with channel(pki, address, pki.workload("shop")) as workload:
            request = logs_service_pb2.ExportLogsServiceRequest(
                resource_logs=[records("one", "two", "three", "four", record="r1")]
            )
            await logs_service_pb2_grpc.LogsServiceStub(workload).Export(request)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await CollectorQueryStub(workload).FindLogs(pb.FindLogsRequest())
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        async with channel(pki, address, pki.part("admin")) as admin:
            query = CollectorQueryStub(admin)
            found = await query.FindLogs(pb.FindLogsRequest(attributes={"record": "r1"}, limit=2))
            assert [record.body for record in found.records] == ["three", "four"]
            assert found.matched == 3
            statistics = await query.Statistics(pb.StatisticsRequest())
            assert (statistics.logs, statistics.logs_received, statistics.logs_evicted) == (3, 4, 1)
            with pytest.raises(grpc.aio.AioRpcError) as bad:
                await query.FindTraces(pb.FindTracesRequest(trace_id="xyz"))
            assert "32 hexadecimal digits" in (bad.value.details() or "")


async def test_forwards_to_the_users_endpoint() -> None:
    """What arrives is handed on as it came."""
    store = TraceStore(10)
    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(otlp.TraceService(store, None), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with forwarding(f"http://127.0.0.1:{port}") as forwarder, asyncio.timeout(20):
            assert forwarder
            forwarder.put("trace", trace_service_pb2.ExportTraceServiceRequest(resource_spans=[spans(7, "a")]))
            while not forwarder.sent:
                await asyncio.sleep(0.01)
        assert [trace.trace_id for trace in store.find()] == [f"{7:032x}"]
    finally:
        await server.stop(0)


def test_forwarding_drops_and_counts_when_the_endpoint_is_slow() -> None:
    """The queue is bounded."""
    forwarder = Forwarder()
    for _ in range(1010):
        forwarder.put("trace", trace_service_pb2.ExportTraceServiceRequest())
    assert forwarder.dropped == 10
