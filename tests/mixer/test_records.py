"""The record pipeline on a real NATS server: whatever goes down, every record arrives once or is marked."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import servers
from otlp_collector import attribute
from record_platform import Platform, alone, metric_reaches, paths, running, unmarked

from meshwright.api.envoy.data.accesslog.v3 import accesslog_pb2
from meshwright.api.envoy.service.accesslog.v3 import als_pb2, als_pb2_grpc
from meshwright.api.istio.mixer.v1 import mixer_pb2_grpc
from meshwright.core import errors
from meshwright.mixer import check
from pki import Pki

pytestmark = pytest.mark.timeout(150)  # processes start slowly on a busy machine

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
async def platform(tmp_path: Path, pki: Pki) -> AsyncIterator[Platform]:
    infrastructure = servers.InfrastructurePki()
    async with running(tmp_path, pki, infrastructure, alone(tmp_path, infrastructure)) as platform:
        yield platform


async def test_an_access_log_becomes_a_log_record_and_metrics(platform: Platform) -> None:
    """Envoy's stream in, OTLP out: the request's trace, who called whom, and Istio's standard metrics."""
    mixer = platform.mixer("mixer")
    await mixer.start()
    entry = accesslog_pb2.HTTPAccessLogEntry()
    entry.common_properties.custom_tags["destination.service.name"] = "catalog"
    entry.common_properties.duration.FromMilliseconds(12)
    entry.common_properties.start_time.FromSeconds(1_795_000_000)
    entry.request.path = "/items?page=2"
    entry.request.request_method = 1
    entry.request.request_headers["traceparent"] = f"00-{TRACE}-{SPAN}-01"
    entry.response.response_code.value = 404
    message = als_pb2.StreamAccessLogsMessage()
    message.identifier.log_name = "inbound"
    message.http_logs.log_entry.append(entry)
    async with mixer.channel(platform.pki.workload("catalog")) as channel:
        call = als_pb2_grpc.AccessLogServiceStub(channel).StreamAccessLogs()
        await call.write(message)
        await platform.collector.until(lambda: bool(platform.collector.logs and platform.collector.metrics))
        call.cancel()
    record = platform.collector.logs[0]
    assert record.body.string_value == "GET /items 404"
    assert record.time_unix_nano == 1_795_000_000 * 10**9
    assert (record.trace_id.hex(), record.span_id.hex()) == (TRACE, SPAN)
    assert attribute(record.attributes, "destination.service.name") == "catalog"
    assert attribute(record.attributes, "duration") == pytest.approx(0.012)
    assert attribute(record.attributes, "meshwright.reporter") == "spiffe://mesh.local/ns/default/sa/catalog"
    assert not attribute(record.attributes, "meshwright.redelivered"), "Envoy sends no entry twice"
    metrics = {metric.name: metric for metric in platform.collector.metrics}
    count = metrics["istio_requests_total"].sum.data_points[0]
    assert count.as_int == 1
    assert attribute(count.attributes, "response_code") == 404
    assert attribute(count.attributes, "destination_service_name") == "catalog"
    spans = platform.collector.spans
    await platform.collector.until(lambda: any(span.name == "deliver meshwright.mixer.records" for span in spans))
    delivered = next(span for span in spans if span.name == "deliver meshwright.mixer.records")
    assert (delivered.trace_id.hex(), delivered.parent_span_id.hex()) == (TRACE, SPAN)
    duration = metrics["istio_request_duration_milliseconds"].histogram.data_points[0]
    assert duration.sum == pytest.approx(12)
    assert await asyncio.to_thread(mixer.stop) == 0


async def test_the_decision_is_a_span_of_the_requests_trace(platform: Platform) -> None:
    """Rust's spans reach the collector, below the sidecar's span that came with the call."""
    mixer = platform.mixer("mixer")
    await mixer.start()
    async with mixer.channel(platform.pki.workload("shop")) as channel:
        stub = mixer_pb2_grpc.MixerStub(channel)
        await stub.Check(check.request({"request.path": "/"}), metadata=[("traceparent", f"00-{TRACE}-{SPAN}-01")])
    spans = platform.collector.spans
    wanted = {"policy.check", "istio.mixer.v1.Mixer/Check"}
    await platform.collector.until(lambda: wanted <= {span.name for span in spans})
    by_id = {span.span_id: span for span in spans}
    decision = next(span for span in spans if span.name == "policy.check")
    served = by_id[decision.parent_span_id]
    assert served.name == "istio.mixer.v1.Mixer/Check"
    assert (served.trace_id.hex(), served.parent_span_id.hex()) == (TRACE, SPAN)
    assert await asyncio.to_thread(mixer.stop) == 0


async def test_exporter_down_and_worker_killed_lose_nothing(platform: Platform) -> None:
    """The collector stops, records come, mixer is killed, both start: every record arrives, further copies marked."""
    count, collector = 300, platform.collector
    mixer = platform.mixer("mixer")
    await mixer.start()
    await platform.report(mixer, 20)
    await metric_reaches(mixer, "meshwright_mixer_records_acknowledged_total", 20)
    collector.logs.clear()

    await collector.stop()
    await platform.report(mixer, count)
    await metric_reaches(mixer, "meshwright_mixer_records_stored_total", 20 + count)
    await metric_reaches(mixer, "meshwright_mixer_records_returned_total", 1)
    health = await mixer.until(lambda health: health["state"] == "degraded")
    assert "adapter opentelemetry.meshwright-system" in health["parts"]
    assert health["ready"]
    mixer.kill()
    await asyncio.gather(mixer.start(), collector.start())
    await collector.until(lambda: len(paths(collector)) == count, 45)
    await metric_reaches(mixer, "meshwright_mixer_records_acknowledged_total", count)

    copies = Counter(identifier for identifier, _ in collector.record_ids())
    assert len(copies) == count
    assert unmarked(collector) == 1
    assert await asyncio.to_thread(mixer.stop) == 0


async def test_a_killed_workers_records_go_to_another_replica(platform: Platform) -> None:
    """Two replicas share the queue; one dies with records in its hands and the other delivers them, marked."""
    one, two = platform.mixer("one"), platform.mixer("two")
    await one.start()
    await platform.collector.stop()
    await platform.report(one, 60)
    await metric_reaches(one, "meshwright_mixer_records_returned_total", 1)
    one.kill()
    await asyncio.gather(two.start(), platform.collector.start())
    await platform.collector.until(lambda: len(paths(platform.collector)) == 60, 45)
    assert any(redelivered for _, redelivered in platform.collector.record_ids())
    assert await asyncio.to_thread(two.stop) == 0


async def test_nats_killed_costs_no_record(platform: Platform) -> None:
    """While the queue's server is away reports aren't answered, but kept; decisions go on."""
    mixer, collector = platform.mixer("mixer"), platform.collector
    await mixer.start()
    await platform.report(mixer, 10)
    await collector.until(lambda: len(paths(collector)) == 10)
    platform.nats.kill()
    reporting = asyncio.create_task(platform.report(mixer, 100, timeout=60))
    await mixer.until(lambda health: health["parts"].get("records", {}).get("state") == "degraded")
    assert (await mixer.check(platform.pki.workload("shop"), {"request.path": "/"}))["code"] == 0
    assert not reporting.done()
    platform.nats.start()
    await reporting
    await collector.until(lambda: len(paths(collector)) == 100, 45)
    assert unmarked(collector) == 1
    assert await asyncio.to_thread(mixer.stop) == 0


async def test_what_was_answered_survives_kill_9_of_mixer_and_nats_at_once(platform: Platform) -> None:
    """Both die in the midst of many reports: each that was answered OK arrives."""
    mixer, collector, sidecar = platform.mixer("mixer"), platform.collector, platform.pki.workload("shop")
    await mixer.start()
    answered: set[str] = set()

    async def report(reporter: int) -> None:
        with contextlib.suppress(grpc.RpcError, errors.MeshwrightError):
            for number in range(1000):
                path = f"/{reporter}/{number}"
                await mixer.report(sidecar, {"request.path": path, "response.code": 200}, timeout=20)
                answered.add(path)

    async with asyncio.timeout(60), asyncio.TaskGroup() as reporters:
        tasks = [reporters.create_task(report(reporter)) for reporter in range(4)]
        while len(answered) < 40:
            await asyncio.sleep(0.01)
        mixer.kill()
        platform.nats.kill()
        for task in tasks:
            task.cancel()
    platform.nats.start()
    await mixer.start()
    await collector.until(lambda: answered <= paths(collector).keys(), 45)
    assert unmarked(collector) == 1
    assert await asyncio.to_thread(mixer.stop) == 0


async def test_an_outage_of_minutes_loses_nothing(platform: Platform) -> None:
    """As many attempts as three minutes have at the usual rests of 5 s, which `--rest-seconds` makes short here."""
    count, attempts, collector = 60, 40, platform.collector
    mixer = platform.mixer("mixer", "--rest-seconds", "0.05")
    await mixer.start()
    await collector.stop()
    await platform.report(mixer, count)
    await metric_reaches(mixer, "meshwright_mixer_records_returned_total", count * attempts, 90)
    await platform.report(mixer, count, first=count)
    await collector.start()
    await collector.until(lambda: len(paths(collector)) == 2 * count, 45)
    assert unmarked(collector) == 1
    assert await asyncio.to_thread(mixer.stop) == 0


async def test_a_full_queue_makes_reports_wait_and_loses_nothing(platform: Platform) -> None:
    """The backend is away until the stream has all it may keep: reports aren't answered, and are when there is room."""
    collector, sidecar = platform.collector, platform.pki.workload("shop")
    mixer = platform.mixer("mixer", "--record-bytes", str(1 << 20), "--rest-seconds", "0.05")
    await mixer.start()
    await collector.stop()
    answered: set[str] = set()

    async def report(reporter: int) -> None:
        for number in range(10):
            path = f"/{reporter}/{number}"
            record = {"request.path": path, "request.useragent": "x" * 50_000, "response.code": 200}
            with contextlib.suppress(grpc.RpcError, errors.MeshwrightError):  # half a minute without room
                await mixer.report(sidecar, record, timeout=100)
                answered.add(path)

    async with asyncio.TaskGroup() as reporters:
        for reporter in range(4):
            reporters.create_task(report(reporter))
        health = await mixer.until(lambda health: "records" in health["parts"], 60)
        assert "maximum bytes" in health["parts"]["records"]["reason"]
        assert health["ready"]
        assert 0 < len(answered) < 40
        await collector.start()
    await collector.until(lambda: len(paths(collector)) == 40, 60)
    assert unmarked(collector) == 1
    assert await asyncio.to_thread(mixer.stop) == 0


async def test_without_nats_records_go_straight_to_the_adapter(platform: Platform) -> None:
    """Alone, mixer delivers what it has before it stops."""
    mixer = platform.mixer("mixer", nats=False)
    await mixer.start()
    await platform.report(mixer, 30)
    assert await asyncio.to_thread(mixer.stop) == 0
    assert len(paths(platform.collector)) == 30
    assert not any(redelivered for _, redelivered in platform.collector.record_ids())
