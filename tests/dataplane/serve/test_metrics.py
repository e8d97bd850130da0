"""Metrics of calls: by method and status, with names that a caller can't make up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import prometheus_client
import pytest
from opentelemetry.proto.metrics.v1 import metrics_pb2
from prometheus_client.openmetrics import exposition as openmetrics
from serve_echo import AsyncEcho, EchoStub
from serve_rig import native_channel, native_server

from meshwright.core.grpc import metrics as grpc_metrics
from meshwright.core.telemetry import metrics
from meshwright.dataplane import telemetry

NAME = "rpc_server_call_duration_seconds"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def registry() -> prometheus_client.CollectorRegistry:
    """A registry with this process's gRPC metrics; counters live as long as the process does."""
    registry = prometheus_client.CollectorRegistry()
    grpc_metrics.install(registry)
    return registry


class Calls:
    """What was counted since the beginning of the test."""

    def __init__(self, registry: prometheus_client.CollectorRegistry) -> None:
        self._registry = registry
        self._before: dict[str, float] = {}
        self._before = self._read()

    def _read(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for family in self._registry.collect():
            for sample in family.samples:
                labels = sample.labels
                method, status = labels.get("rpc_method", ""), labels.get("rpc_response_status_code", "")
                if sample.name.endswith(("_count", "_total", "_active")):
                    key = f"{sample.name} {method} {status}".strip()
                    found[key] = found.get(key, 0) + sample.value
        return {key: value - self._before.get(key, 0) for key, value in found.items()}

    async def wait(self, expected: Callable[[dict[str, float]], bool]) -> dict[str, float]:
        """Wait for the counters: a call is counted just after its caller has its answer."""
        async with asyncio.timeout(10):
            while not expected(found := self._read()):
                await asyncio.sleep(0.01)
        return found


async def test_calls_are_counted_by_method_and_status(
    echo: AsyncEcho, registry: prometheus_client.CollectorRegistry
) -> None:
    calls = Calls(registry)
    ok, missing = f"{NAME}_count meshwright.test.Echo/Unary OK", f"{NAME}_count meshwright.test.Echo/Unary NOT_FOUND"
    unknown, cancelled = f"{NAME}_count _OTHER UNIMPLEMENTED", f"{NAME}_count meshwright.test.Echo/Unary CANCELLED"
    async with native_server(echo) as (_, address), native_channel(address) as channel:
        stub = EchoStub(channel)
        for _ in range(3):
            await stub.unary("hello", timeout=10)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.unary("abort NOT_FOUND", timeout=10)
        for number in range(5):
            made_up = channel.unary_unary(f"/made.Up/Method{number}")
            with pytest.raises(grpc.aio.AioRpcError):
                await made_up(b"", timeout=10)
        call = stub.unary("wait", timeout=30)
        await asyncio.wait_for(echo.started.wait(), 10)
        active = "meshwright_grpc_server_calls_active meshwright.test.Echo/Unary"
        await calls.wait(lambda found: found.get(active) == 1)
        call.cancel()
        found = await calls.wait(lambda found: found.get(cancelled) == 1 and found.get(unknown) == 5)
    assert (found[ok], found[missing], found[active]) == (3, 1, 0)
    assert found["meshwright_grpc_server_calls_started_total meshwright.test.Echo/Unary"] == 5
    assert not any("made.Up" in key for key in found if key.startswith("rpc_server"))


async def test_labels_and_buckets_are_the_conventions(
    echo: AsyncEcho, registry: prometheus_client.CollectorRegistry
) -> None:
    async with native_server(echo) as (_, address), native_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await EchoStub(channel).unary("fail", timeout=10)
        labels = {
            "rpc_system_name": "grpc",
            "rpc_method": "meshwright.test.Echo/Unary",
            "rpc_response_status_code": "UNKNOWN",
            "error_type": "UNKNOWN",
        }
        async with asyncio.timeout(10):
            while registry.get_sample_value(f"{NAME}_bucket", labels | {"le": "+Inf"}) is None:
                await asyncio.sleep(0.01)
    samples = [sample for family in registry.collect() for sample in family.samples]
    bounds = [each.labels["le"] for each in samples if each.labels == labels | {"le": each.labels.get("le", "")}]
    advised = "0.005 0.01 0.025 0.05 0.075 0.1 0.25 0.5 0.75 1 2.5 5 7.5 10 +Inf"
    assert " ".join(bounds) == advised
    assert b'rpc_server_call_duration_seconds_bucket{error_type="UNKNOWN",le="0.005"' in (
        prometheus_client.generate_latest(registry)
    )


async def test_a_recorded_call_is_an_exemplar(echo: AsyncEcho, registry: prometheus_client.CollectorRegistry) -> None:
    """Its trace stands in OpenMetrics text and in OTLP, whose names have dots."""
    telemetry.drain(0.0)  # spans are made for who takes them
    async with native_server(echo) as (_, address), native_channel(address) as channel:
        metadata = (("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01"),)
        await EchoStub(channel).unary("hello", timeout=10, metadata=metadata)
        async with asyncio.timeout(10):
            while TRACE not in (text := openmetrics.generate_latest(registry).decode()):
                await asyncio.sleep(0.01)
    assert '# {span_id="' in text
    encoded = metrics.encode({}, registry).resource_metrics[0].scope_metrics[0].metrics
    (duration,) = (each for each in encoded if each.name == "rpc.server.call.duration")
    assert duration.unit == "s"
    points = [
        point for point in duration.histogram.data_points if _attributes(point)["rpc.response.status_code"] == "OK"
    ]
    exemplars = [exemplar for point in points for exemplar in point.exemplars]
    assert any(exemplar.trace_id.hex() == TRACE and exemplar.as_double > 0 for exemplar in exemplars)


def _attributes(point: metrics_pb2.HistogramDataPoint) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in point.attributes}


async def test_a_registered_server_shows_its_connections(echo: AsyncEcho) -> None:
    async with native_server(echo) as (server, address), native_channel(address) as channel:
        grpc_metrics.register(server)
        await EchoStub(channel).unary("hello", timeout=10)
        value = prometheus_client.REGISTRY.get_sample_value
        labels = {"server_address": address}
        assert value("meshwright_grpc_server_connections_open", labels) == 1
        assert value("meshwright_grpc_server_connections_accepted_total", labels) == 1
        assert value("meshwright_grpc_server_handshakes_failed_total", labels) == 0


async def test_metrics_can_be_off(echo: AsyncEcho, registry: prometheus_client.CollectorRegistry) -> None:
    calls = Calls(registry)
    async with native_server(echo, metrics=False) as (server, address), native_channel(address) as channel:
        await EchoStub(channel).unary("hello", timeout=10)
        assert server.stats()["calls_started"] == 1
    assert calls._read().get("meshwright_grpc_server_calls_started_total meshwright.test.Echo/Unary", 0) == 0


async def test_a_channel_counts_its_calls(echo: AsyncEcho, registry: prometheus_client.CollectorRegistry) -> None:
    """Calls that never reached a server too, and those that were given up."""
    calls = Calls(registry)
    async with native_server(echo) as (_, address), native_channel(address) as channel:
        stub = EchoStub(channel)
        await stub.unary("hello", timeout=10)
        assert [part async for part in stub.download("2", timeout=10)] == ["0", "1"]
        call = stub.unary("wait", timeout=30)
        await asyncio.wait_for(echo.started.wait(), 10)
        call.cancel()
        given_up = "rpc_client_call_duration_seconds_count meshwright.test.Echo/Unary CANCELLED"
        await calls.wait(lambda found: found.get(given_up) == 1)
    async with native_channel("127.0.0.1:1") as nobody:
        with pytest.raises(grpc.aio.AioRpcError):
            await EchoStub(nobody).unary("hello", timeout=10)
    found = await calls.wait(lambda found: True)
    name = "rpc_client_call_duration_seconds_count meshwright.test.Echo"
    assert (found[f"{name}/Unary OK"], found[f"{name}/Download OK"], found[f"{name}/Unary UNAVAILABLE"]) == (1, 1, 1)
    servers = {
        sample.labels["server_address"]
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "rpc_client_call_duration_seconds_count"
    }
    assert servers & {"127.0.0.1", "_OTHER"}  # beside what other tests of this process have called
