"""Server spans: recorded when the caller's trace is sampled, with what OpenTelemetry's conventions want."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from serve_echo import AsyncEcho, EchoStub
from serve_rig import CLIENT_ID, native_channel, native_server

from meshwright.core.identity import StaticIdentity
from meshwright.dataplane import telemetry

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


async def spans(count: int) -> list[telemetry.NativeSpan]:
    """Wait for `count` spans; a span is queued just after its caller has its answer."""
    found: list[telemetry.NativeSpan] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            found += await asyncio.to_thread(telemetry.drain, 1.0)
    return found


@pytest.fixture(autouse=True)
def empty() -> None:
    telemetry.drain(0.0, 100_000)


async def test_a_sampled_call_is_recorded(
    echo: AsyncEcho, server_identity: StaticIdentity, client_identity: StaticIdentity
) -> None:
    """Name, place in the trace, times and attributes; the outcome too."""
    async with (
        native_server(echo, identity=server_identity) as (_, address),
        native_channel(address, client_identity) as channel,
    ):
        metadata = (("traceparent", f"00-{TRACE}-{PARENT}-01"),)
        stub = EchoStub(channel)
        await stub.unary("hello", timeout=10, metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.unary("abort NOT_FOUND", timeout=10, metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.unary("fail", timeout=10, metadata=metadata)
        first, second, third = await spans(3)
    assert first.name == "meshwright.test.Echo/Unary"
    assert first.trace_id.hex() == TRACE
    assert first.parent_span_id is not None
    assert first.parent_span_id.hex() == PARENT
    assert first.span_id != first.parent_span_id
    assert first.kind == "server"
    assert 0 < first.end_unix_ns - first.start_unix_ns < 10_000_000_000
    assert first.error is None
    host, port = address.split(":")
    client_port = first.attributes["client.port"]
    assert first.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": "meshwright.test.Echo/Unary",
        "rpc.response.status_code": "OK",
        "server.address": host,
        "server.port": int(port),
        "client.address": "127.0.0.1",
        "client.port": client_port,
        "network.peer.address": "127.0.0.1",
        "network.peer.port": client_port,
        "network.transport": "tcp",
        "peer.spiffe_id": CLIENT_ID,
    }
    # The caller's fault: no error here.
    assert (second.attributes["rpc.response.status_code"], second.error) == ("NOT_FOUND", None)
    assert "error.type" not in second.attributes
    assert third.attributes["rpc.response.status_code"] == third.attributes["error.type"] == "UNKNOWN"
    assert third.error == "Unexpected <class 'ValueError'>: boom"


async def test_what_is_not_sampled_costs_nothing(echo: AsyncEcho) -> None:
    """An unsampled trace, and by default a call without one, leaves no span; sampling of roots is a setting."""
    async with native_server(echo) as (_, address), native_channel(address) as channel:
        stub = EchoStub(channel)
        await stub.unary("hello", timeout=10)
        await stub.unary("hello", timeout=10, metadata=(("traceparent", f"00-{TRACE}-{PARENT}-00"),))
        await stub.unary("hello", timeout=10, metadata=(("traceparent", f"00-{TRACE}-{PARENT}-01"),))
        (span,) = await spans(1)
        assert span.trace_id.hex() == TRACE
    async with native_server(echo, sample_roots=1.0) as (_, address), native_channel(address) as channel:
        await EchoStub(channel).unary("hello", timeout=10)
        (root,) = await spans(1)
        assert root.parent_span_id is None


async def test_a_cancelled_call_is_recorded(echo: AsyncEcho) -> None:
    """A call that its caller gave up ends its span as CANCELLED."""
    async with native_server(echo, sample_roots=1.0) as (_, address), native_channel(address) as channel:
        call = EchoStub(channel).unary("wait", timeout=30)
        await asyncio.wait_for(echo.started.wait(), 10)
        call.cancel()
        (span,) = await spans(1)
        assert span.attributes["rpc.response.status_code"] == "CANCELLED"


async def test_a_made_up_method_names_no_span(echo: AsyncEcho) -> None:
    async with native_server(echo, sample_roots=1.0) as (_, address), native_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary("/made.Up/Method")(b"", timeout=10)
        (span,) = await spans(1)
    assert (span.name, span.attributes["rpc.method"]) == ("grpc", "_OTHER")
    assert span.attributes["rpc.method_original"] == "made.Up/Method"


@pytest.mark.parametrize("flags", ["01", "00"])
async def test_a_channel_passes_the_trace_of_its_caller_on(echo: AsyncEcho, flags: str) -> None:
    """In a recorded trace with a span of the call between, else as it is."""
    place = f"00-{TRACE}-{PARENT}-{flags}"
    async with (
        native_server(echo) as (_, address),
        native_channel(address, traceparent=lambda path: place if path.endswith("/Unary") else None) as channel,
    ):
        stub = EchoStub(channel)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.unary("abort NOT_FOUND", timeout=10)
        assert [part async for part in stub.download("1", timeout=10)] == ["0"]
        if flags == "00":
            assert telemetry.drain(0.0) == []
            return
        found = {span.kind: span for span in await spans(2)}
    client, server = found["client"], found["server"]
    assert client.parent_span_id is not None
    assert client.parent_span_id.hex() == PARENT
    assert server.parent_span_id == client.span_id
    assert client.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": "meshwright.test.Echo/Unary",
        "server.address": "127.0.0.1",
        "server.port": int(address.split(":")[1]),
        "rpc.response.status_code": "NOT_FOUND",
        "error.type": "NOT_FOUND",
    }
    assert client.error
