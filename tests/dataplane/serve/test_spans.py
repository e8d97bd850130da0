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
    assert first.attributes["rpc.system"] == "grpc"
    assert first.attributes["rpc.service"] == "meshwright.test.Echo"
    assert first.attributes["rpc.method"] == "Unary"
    assert first.attributes["rpc.grpc.status_code"] == 0
    assert first.attributes["peer.spiffe_id"] == CLIENT_ID
    assert (second.attributes["rpc.grpc.status_code"], second.error) == (5, None)  # the caller's fault: no error here
    assert third.attributes["rpc.grpc.status_code"] == 2
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
        assert span.attributes["rpc.grpc.status_code"] == 1
