"""core.telemetry: log lines and metrics reach the collector as OTLP."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import prometheus_client
import pytest
import structlog
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2

from meshwright.core import grpc as mesh_grpc
from meshwright.core import logs
from meshwright.core.identity import StaticIdentity
from meshwright.core.telemetry import Telemetry, metrics
from meshwright.core.telemetry.records import Records
from pki import Pki


class Collector(logs_service_pb2_grpc.LogsServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer):
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.bodies: list[str] = []
        self.names: set[str] = set()
        self.services: set[str] = set()

    async def Export(self, request: object, context: object) -> object:
        if isinstance(request, logs_service_pb2.ExportLogsServiceRequest):
            for resource in request.resource_logs:
                self.services |= {p.value.string_value for p in resource.resource.attributes if p.key == "service.name"}
                self.bodies += [record.body.string_value for record in resource.scope_logs[0].log_records]
            return logs_service_pb2.ExportLogsServiceResponse()
        assert isinstance(request, metrics_service_pb2.ExportMetricsServiceRequest)
        self.names |= {each.name for each in request.resource_metrics[0].scope_metrics[0].metrics}
        return metrics_service_pb2.ExportMetricsServiceResponse()


@pytest.fixture
def logging() -> Iterator[None]:
    logs.setup("mixer")
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("logging")
async def test_lines_and_metrics_are_sent_at_the_end_at_the_latest(pki: Pki) -> None:
    collector = Collector()
    server = mesh_grpc.Server("127.0.0.1:0", StaticIdentity(pki.part("collector")))
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(collector, server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(collector, server)
    address = await server.start()
    async with Telemetry("mixer", address, StaticIdentity(pki.part("mixer")), "mesh.local"):
        structlog.get_logger().info("replica_joined", count=2)
    structlog.get_logger().info("after_the_end")
    async with asyncio.timeout(10):
        while not (collector.bodies and collector.names):
            await asyncio.sleep(0.01)
    await server.stop(0)
    assert "replica_joined" in collector.bodies
    assert "after_the_end" not in collector.bodies
    assert collector.services == {"meshwright-mixer"}
    assert "process_resident_memory_bytes" in collector.names


def test_record_has_severity_fields_and_trace() -> None:
    records = Records({"service.name": "x"})
    records(
        {"event": "a", "level": "warning", "n": 2**70, "text": "\ud800", "trace_id": "01" * 16, "span_id": "02" * 8}
    )
    request = records.take()
    assert request is not None
    (record,) = request.resource_logs[0].scope_logs[0].log_records
    assert record.severity_number == logs_pb2.SEVERITY_NUMBER_WARN
    assert (record.body.string_value, record.trace_id, record.span_id) == ("a", b"\1" * 16, b"\2" * 8)
    assert {pair.key: pair.value.string_value for pair in record.attributes} == {"n": str(2**70), "text": "?"}
    assert records.take() is None


def test_telemetry_s_own_troubles_make_no_telemetry() -> None:
    records = Records({})
    records({"event": "telemetry refused", "level": "warning"})
    assert records.take() is None


def test_lines_are_bounded() -> None:
    records = Records({})
    for number in range(5000):
        records({"event": str(number)})
    request = records.take()
    assert request is not None
    kept = request.resource_logs[0].scope_logs[0].log_records
    assert (len(kept), kept[-1].body.string_value) == (1024, "4999")


def test_metrics_say_what_prometheus_says() -> None:
    registry = prometheus_client.CollectorRegistry()
    prometheus_client.Counter("asked", "Calls", ["code"], registry=registry).labels("OK").inc(3)
    prometheus_client.Gauge("open", "Streams", registry=registry).set(7)
    histogram = prometheus_client.Histogram("took", "Seconds", ["m"], buckets=(1.0, 2.0), registry=registry)
    for value in (0.5, 1.5, 1.6, 9.0):
        histogram.labels("x").observe(value)
    request = metrics.encode({"service.name": "x"}, registry)
    found = {each.name: each for each in request.resource_metrics[0].scope_metrics[0].metrics}
    assert found["asked"].sum.is_monotonic
    (point,) = found["asked"].sum.data_points
    assert (point.as_double, point.attributes[0].value.string_value) == (3, "OK")
    assert found["open"].gauge.data_points[0].as_double == 7
    (buckets,) = found["took"].histogram.data_points
    assert (list(buckets.bucket_counts), list(buckets.explicit_bounds)) == ([1, 2, 1], [1.0, 2.0])
    assert (buckets.count, buckets.sum) == (4, 12.6)
    assert found["took"].histogram.aggregation_temporality == metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE
