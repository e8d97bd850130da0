"""The OpenTelemetry adapter against a real collector on mutual TLS: what it sends, and when it says it couldn't."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import grpc
import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from otlp_collector import Collector, attribute
from pydantic import ValidationError
from report_entries import PARENT, trace_span

from meshwright.core.grpc import Channel
from meshwright.core.identity import StaticIdentity
from meshwright.mixer.adapters.opentelemetry import ADAPTER
from meshwright.mixer.plugintest import RecordingHost, log_entry, metric, running
from pki import Pki

COUNTER = {"instance": "count", "name": "requests", "description": "Requests."}
HISTOGRAM = {
    "instance": "time.default",
    "name": "duration",
    "kind": "DISTRIBUTION",
    "unit": "ms",
    "bounds": [1.0, 10.0],
}
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
async def collector(pki: Pki) -> AsyncIterator[Collector]:
    async with Collector(StaticIdentity(pki.part("collector"))) as running_collector:
        yield running_collector


@pytest.fixture
def host(pki: Pki, collector: Collector) -> RecordingHost:
    identity = StaticIdentity(pki.part("mixer"))
    return RecordingHost(
        otlp=collector.address,
        replica="replica-1",
        channels=lambda target, peer: Channel(
            target, identity, peer=peer or "spiffe://mesh.local/ns/meshwright-system/sa/collector"
        ),
    )


async def test_a_log_entry_arrives_with_its_trace(collector: Collector, host: RecordingHost) -> None:
    """Section LogRecord of OTLP: time, severity, body, attributes, trace and span."""
    moment = datetime(2026, 11, 21, 12, tzinfo=UTC)
    entry = log_entry(
        {
            "http.request.method": "GET",
            "url.path": "/cart",
            "http.response.status_code": 200,
            "network.peer.address": ip_address("10.0.0.1"),
            "duration": timedelta(milliseconds=12),
            "tls.mutual": True,
            "labels": {"app": "shop"},
        },
        record_id="7" * 32,
        time=moment,
        trace_id=TRACE,
        span_id=SPAN,
    )
    async with running(ADAPTER, {}, host) as handler:
        await handler.report([entry])
    record = collector.logs[0]
    assert record.time_unix_nano == int(moment.timestamp()) * 10**9
    assert record.trace_id.hex() == TRACE
    assert record.span_id.hex() == SPAN
    assert record.severity_number == 9
    assert record.body.string_value == "GET /cart 200"
    assert attribute(record.attributes, "network.peer.address") == "10.0.0.1"
    assert attribute(record.attributes, "duration") == pytest.approx(0.012)
    assert attribute(record.attributes, "tls.mutual") is True
    assert attribute(record.attributes, "meshwright.record.id") == "7" * 32
    assert attribute(record.attributes, "meshwright.redelivered") is None
    assert attribute(record.attributes, "labels").values[0].key == "app"


async def test_a_redelivered_entry_is_marked(collector: Collector, host: RecordingHost) -> None:
    async with running(ADAPTER, {}, host) as handler:
        await handler.report([log_entry({"a": 1}, redelivered=True)])
    assert collector.record_ids()[0][1] is True


async def test_a_batch_becomes_deltas_by_dimensions(collector: Collector, host: RecordingHost) -> None:
    """Sums and histograms of this batch alone; redelivered measurements are points of their own."""
    batch: list[Any] = [metric(1, {"code": 200}, instance="count.default") for _ in range(3)]
    batch.append(metric(1, {"code": 403}, instance="count.default"))
    batch.append(metric(1, {"code": 200}, instance="count.default", redelivered=True))
    batch += [metric(timedelta(milliseconds=each), {}, instance="time.default") for each in (0.5, 5, 50)]
    async with running(ADAPTER, {"metrics": [COUNTER, HISTOGRAM]}, host) as handler:
        await handler.report(batch)
    requests, duration = collector.metrics
    assert (requests.name, requests.description) == ("requests", "Requests.")
    assert requests.sum.is_monotonic
    assert requests.sum.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
    points = {
        (attribute(each.attributes, "code"), attribute(each.attributes, "meshwright.redelivered")): each.as_int
        for each in requests.sum.data_points
    }
    assert points == {(200, None): 3, (403, None): 1, (200, True): 1}
    point = duration.histogram.data_points[0]
    assert (duration.name, duration.unit) == ("duration", "ms")
    assert [*point.bucket_counts] == [1, 1, 1]
    assert [*point.explicit_bounds] == [1.0, 10.0]
    assert (point.count, point.sum, point.min, point.max) == (3, 55.5, 0.5, 50)
    assert point.start_time_unix_nano < point.time_unix_nano


async def test_an_instance_without_a_definition_is_a_counter_of_its_name(
    collector: Collector, host: RecordingHost
) -> None:
    async with running(ADAPTER, {}, host) as handler:
        await handler.report([metric(2.5, {}, instance="bytes.shop")])
    assert collector.metrics[0].name == "bytes"
    assert collector.metrics[0].sum.data_points[0].as_double == 2.5


async def test_a_refused_export_is_raised(collector: Collector, host: RecordingHost) -> None:
    """The batch isn't acknowledged then."""
    collector.refuse_metrics = grpc.StatusCode.UNAVAILABLE
    async with running(ADAPTER, {}, host) as handler:
        with pytest.raises(grpc.aio.AioRpcError, match="told to refuse"):
            await handler.report([metric(1, {})])


async def test_a_collector_that_is_away_is_an_error_within_the_deadline(
    collector: Collector, host: RecordingHost
) -> None:
    await collector.stop()
    async with running(ADAPTER, {"timeoutSeconds": 0.3}, host) as handler:
        with pytest.raises(grpc.aio.AioRpcError):
            await handler.report([log_entry({})])
    await collector.start()


async def test_a_collector_of_another_authority_gets_nothing(collector: Collector, host: RecordingHost) -> None:
    """Mutual TLS: the batch stays with mixer when somebody else answers at the collector's address."""
    stranger = Pki()
    async with Collector(StaticIdentity(stranger.part("collector"))) as impostor:
        async with running(ADAPTER, {"endpoint": impostor.address, "timeoutSeconds": 1.0}, host) as handler:
            with pytest.raises(grpc.aio.AioRpcError):
                await handler.report([log_entry({})])
        assert not impostor.logs


async def test_no_collector_at_all_is_an_error_with_its_remedy() -> None:
    with pytest.raises(ValueError, match="--otlp"):
        async with running(ADAPTER, {}, RecordingHost()):
            pass


def test_bounds_must_ascend() -> None:
    with pytest.raises(ValidationError, match="ascend"):
        ADAPTER.parameters.model_validate({"metrics": [{**HISTOGRAM, "bounds": [2.0, 1.0]}]})


async def test_a_span_arrives_in_its_trace(collector: Collector, host: RecordingHost) -> None:
    """OTLP's Span: ids, kind, times, status; one without a trace is left out."""
    async with running(ADAPTER, {}, host) as handler:
        await handler.report(
            [
                trace_span(),
                trace_span(client_span=True, http_status_code=404, span_id="00f067aa0ba902b8"),
                trace_span(trace_id="none"),
            ]
        )
    server, client = collector.spans
    assert (server.trace_id.hex(), server.span_id.hex(), server.parent_span_id.hex()) == (TRACE, SPAN, PARENT)
    assert (server.name, server.kind, server.status.code) == ("GET /cart", Span.SPAN_KIND_SERVER, 0)
    assert server.end_time_unix_nano - server.start_time_unix_nano == 30_000_000
    assert attribute(server.attributes, "http.response.status_code") == 200
    assert attribute(server.attributes, "peer.service") == "shop"
    assert attribute(server.attributes, "network.peer.address") == "10.0.0.1"
    assert (client.kind, client.status.code) == (Span.SPAN_KIND_CLIENT, Status.STATUS_CODE_ERROR)
    assert attribute(client.attributes, "peer.service") == "cart"


async def test_what_the_collector_will_never_read_is_not_sent_for_ever(
    collector: Collector, host: RecordingHost
) -> None:
    collector.refuse_metrics = grpc.StatusCode.INVALID_ARGUMENT
    async with running(ADAPTER, {}, host) as handler:
        await handler.report([metric(1, {}), log_entry({})])
    assert collector.metrics == []
    assert len(collector.logs) == 1
    assert host.metrics.read("exports_refused_total", signal="metrics") == 1
