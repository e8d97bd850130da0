"""All kinds of calls between our server, our channel and grpcio's, with mutual TLS: what one sends the other gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2 as pb2
from grpc_health.v1 import health_pb2_grpc as pb2_grpc
from grpc_health.v1._async import HealthServicer
from serve_echo import AsyncEcho, SyncEcho, WritingEcho

from meshwright.dataplane.grpc import NativeChannel, NativeServer

SERVICERS = [AsyncEcho, WritingEcho, SyncEcho]


@pytest.mark.parametrize("servicer", SERVICERS)
async def test_all_four_kinds(connect: Any, servicer: type) -> None:
    """Async, reading-and-writing and blocking handlers answer all four kinds of calls."""
    stub = await connect(servicer())
    assert await stub.unary("hello", timeout=10) == "hello"
    assert [answer async for answer in stub.download("100", timeout=10)] == [str(index) for index in range(100)]
    assert await stub.upload(iter("abc"), timeout=10) == "a+b+c"
    assert [answer async for answer in stub.chat(iter("abc"), timeout=10)] == ["A", "B", "C"]


async def test_a_conversation(connect: Any, echo: AsyncEcho) -> None:
    """Requests and answers of a stream alternate; the end comes when the requests end."""
    stub = await connect(echo)
    call = stub.chat(timeout=10)
    for word in ("one", "two", "three"):
        await call.write(word)
        assert await call.read() == word.upper()
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_requests_from_an_async_iterator(connect: Any, echo: AsyncEcho) -> None:
    """Requests may come from an async generator."""

    async def words() -> AsyncIterator[str]:
        for word in "xyz":
            await asyncio.sleep(0)
            yield word

    stub = await connect(echo)
    assert await stub.upload(words(), timeout=10) == "x+y+z"


async def test_metadata_both_ways(connect: Any, echo: AsyncEcho) -> None:
    """Initial and trailing metadata arrive, binary values as bytes."""
    stub = await connect(echo)
    sent = (("x-text", "a b"), ("x-many", "1"), ("x-many", "2"), ("x-raw-bin", b"\x00\x01\xff"))
    call = stub.unary("metadata", timeout=10, metadata=sent)
    assert await call == "metadata"
    initial = list(await call.initial_metadata())
    assert [pair for pair in initial if pair[0].startswith("x-")] == list(sent)
    trailing = dict(await call.trailing_metadata())
    assert trailing["trailer-bin"] == b"\x00\xff"
    assert trailing["trailer"] == "end"


@pytest.mark.parametrize("code", ["NOT_FOUND", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "DATA_LOSS"])
@pytest.mark.parametrize("servicer", [AsyncEcho, SyncEcho])
async def test_abort(connect: Any, servicer: type, code: str) -> None:
    """An abort's code, text and trailing metadata reach the caller as AioRpcError."""
    stub = await connect(servicer())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.unary(f"abort {code}", timeout=10)
    assert caught.value.code() is grpc.StatusCode[code]
    assert caught.value.details() == "as you asked: 100 %, «so»"
    assert dict(caught.value.trailing_metadata())["why"] == "asked"


async def test_a_set_code_discards_the_response(connect: Any, echo: AsyncEcho) -> None:
    """A status other than OK that the handler sets is the outcome."""
    stub = await connect(echo)
    with pytest.raises(grpc.aio.AioRpcError, match="nothing here") as caught:
        await stub.unary("set", timeout=10)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("servicer", [AsyncEcho, SyncEcho])
async def test_an_exception_is_unknown_and_the_server_lives_on(connect: Any, servicer: type) -> None:
    """A handler's exception becomes UNKNOWN for its caller only."""
    stub = await connect(servicer())
    with pytest.raises(grpc.aio.AioRpcError, match="boom") as caught:
        await stub.unary("fail", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNKNOWN
    assert await stub.unary("alive", timeout=10) == "alive"


async def test_an_unknown_method(connect: Any, echo: AsyncEcho) -> None:
    """A method that nobody has is UNIMPLEMENTED."""
    stub = await connect(echo)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.unknown("", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_deadline_ends_the_call_on_both_sides(connect: Any, echo: AsyncEcho) -> None:
    """The caller gets DEADLINE_EXCEEDED, and the handler is cancelled."""
    stub = await connect(echo)
    assert 8 < float(await stub.unary("remaining", timeout=10)) <= 10
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.unary("wait", timeout=0.3)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    async with asyncio.timeout(10):
        await echo.cancelled.wait()


async def test_a_deadline_ends_a_stream(connect: Any, echo: AsyncEcho) -> None:
    """The same while answers flow."""
    stub = await connect(echo)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in stub.download("forever", timeout=0.3):
            pass
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    async with asyncio.timeout(10):
        await echo.cancelled.wait()


async def test_cancellation_reaches_the_handler(connect: Any, echo: AsyncEcho) -> None:
    """A caller that gives up cancels the handler's task."""
    stub = await connect(echo)
    call = stub.unary("wait", timeout=30)
    waiting = asyncio.ensure_future(call)
    async with asyncio.timeout(10):
        await echo.started.wait()
        assert call.cancel()
        await echo.cancelled.wait()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await call.code() is grpc.StatusCode.CANCELLED


async def test_cancelling_who_awaits_cancels_the_call(connect: Any, echo: AsyncEcho) -> None:
    """Cancelling the caller's task ends the call too, unary or stream."""
    stub = await connect(echo)

    async def ask() -> None:
        await stub.unary("wait", timeout=30)

    task = asyncio.create_task(ask())
    async with asyncio.timeout(10):
        await echo.started.wait()
        task.cancel()
        await echo.cancelled.wait()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_callbacks_hear_of_the_end_of_a_call_that_nobody_keeps(connect: Any, echo: AsyncEcho) -> None:
    ended: list[str] = []

    async def make() -> str:
        stub = await connect(echo)
        call = stub.unary("hello", timeout=10)
        call.add_done_callback(lambda _: ended.append("heard"))
        return await call

    assert await make() == "hello"
    async with asyncio.timeout(5):
        while not ended:
            await asyncio.sleep(0)
    assert ended == ["heard"]


async def test_cancelling_a_stream(connect: Any, echo: AsyncEcho) -> None:
    """A stream that its reader cancels ends the generator that feeds it."""
    stub = await connect(echo)
    call = stub.download("forever", timeout=30)
    assert await call.read() == "forever"
    call.cancel()
    async with asyncio.timeout(10):
        await echo.cancelled.wait()
    assert call.cancelled()


async def test_generated_stubs_and_servicers(server_identity: Any, client_identity: Any) -> None:
    """grpcio-tools' own generated code runs on our server and channel: the health service."""
    health = HealthServicer()
    server = NativeServer("127.0.0.1:0", server_identity)
    pb2_grpc.add_HealthServicer_to_server(health, server)
    address = await server.start()
    async with NativeChannel(address, client_identity) as channel:
        stub = pb2_grpc.HealthStub(channel)
        await health.set("part", pb2.HealthCheckResponse.SERVING)
        answer = await stub.Check(pb2.HealthCheckRequest(service="part"), timeout=10)
        assert answer.status == pb2.HealthCheckResponse.SERVING
        watch = stub.Watch(pb2.HealthCheckRequest(service="part"), timeout=10)
        assert (await watch.read()).status == pb2.HealthCheckResponse.SERVING
        await health.set("part", pb2.HealthCheckResponse.NOT_SERVING)
        assert (await watch.read()).status == pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
    await server.stop(0)
