"""grpc's interoperation cases for stubs of Python: grpc.aio's channel and ours, against servers of any make."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from interop_messages import (
    BoolValue,
    EchoStatus,
    Empty,
    ResponseParameters,
    SimpleRequest,
    StreamingInputCallRequest,
    StreamingOutputCallRequest,
)
from interop_service import INITIAL, TRAILING, Stub, zeros

SECONDS = 20  # for each call
REQUESTS, RESPONSES = (27182, 8, 1828, 45904), (31415, 9, 2653, 58979)
LARGE_REQUEST, LARGE_RESPONSE = 271828, 314159
SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"

Case = Callable[[Any], Awaitable[None]]
CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    """Enter a case under its name."""
    CASES[function.__name__] = function
    return function


def large(**fields: Any) -> Any:
    """Return the request of large_unary."""
    return SimpleRequest(response_size=LARGE_RESPONSE, payload=zeros(LARGE_REQUEST), **fields)


def asking(*sizes: int, size: int = 0, **fields: Any) -> Any:
    """Return a streaming request that asks for responses of these sizes and brings `size` bytes."""
    asked = [ResponseParameters(size=wanted) for wanted in sizes]
    return StreamingOutputCallRequest(response_parameters=asked, payload=zeros(size), **fields)


async def each(*requests: Any) -> AsyncIterator[Any]:
    for request in requests:
        yield request


async def sizes(call: Any) -> list[int]:
    return [len(response.payload.body) async for response in call]


@case
async def empty_unary(channel: Any) -> None:
    assert await Stub(channel).EmptyCall(Empty(), timeout=SECONDS) == Empty()


@case
async def large_unary(channel: Any) -> None:
    answer = await Stub(channel).UnaryCall(large(), timeout=SECONDS)
    assert answer.payload.body == bytes(LARGE_RESPONSE)


@case
async def client_compressed_unary(channel: Any) -> None:
    """Without the probe: a handler of grpc.aio's interface isn't told which message came compressed."""
    for compression in (grpc.Compression.Gzip, grpc.Compression.NoCompression):
        await _compressed(channel, compression)


@case
async def client_deflated_unary(channel: Any) -> None:
    """Beyond grpc's cases, which use gzip; grpc-go has no deflate."""
    await _compressed(channel, grpc.Compression.Deflate)


async def _compressed(channel: Any, compression: grpc.Compression) -> None:
    is_compressed = BoolValue(value=compression is not grpc.Compression.NoCompression)
    request = large(expect_compressed=is_compressed)
    answer = await Stub(channel).UnaryCall(request, timeout=SECONDS, compression=compression)
    assert answer.payload.body == bytes(LARGE_RESPONSE)


@case
async def server_compressed_unary(channel: Any) -> None:
    for wanted in (True, False):
        request = large(response_compressed=BoolValue(value=wanted))
        answer = await Stub(channel).UnaryCall(request, timeout=SECONDS)
        assert answer.payload.body == bytes(LARGE_RESPONSE)


@case
async def client_streaming(channel: Any) -> None:
    requests = each(*(StreamingInputCallRequest(payload=zeros(size)) for size in REQUESTS))
    answer = await Stub(channel).StreamingInputCall(requests, timeout=SECONDS)
    assert answer.aggregated_payload_size == sum(REQUESTS)


@case
async def client_compressed_streaming(channel: Any) -> None:
    requests = each(*(StreamingInputCallRequest(payload=zeros(size)) for size in (27182, 45904)))
    call = Stub(channel).StreamingInputCall(requests, timeout=SECONDS, compression=grpc.Compression.Gzip)
    assert (await call).aggregated_payload_size == 27182 + 45904


@case
async def server_streaming(channel: Any) -> None:
    assert await sizes(Stub(channel).StreamingOutputCall(asking(*RESPONSES), timeout=SECONDS)) == list(RESPONSES)


@case
async def server_compressed_streaming(channel: Any) -> None:
    asked = [
        ResponseParameters(size=31415, compressed=BoolValue(value=True)),
        ResponseParameters(size=92653, compressed=BoolValue(value=False)),
    ]
    request = StreamingOutputCallRequest(response_parameters=asked)
    assert await sizes(Stub(channel).StreamingOutputCall(request, timeout=SECONDS)) == [31415, 92653]


@case
async def ping_pong(channel: Any) -> None:
    call = Stub(channel).FullDuplexCall(timeout=SECONDS)
    for sent, wanted in zip(REQUESTS, RESPONSES, strict=True):
        await call.write(asking(wanted, size=sent))
        assert len((await call.read()).payload.body) == wanted
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


@case
async def half_duplex(channel: Any) -> None:
    """All requests first, then all responses."""
    call = Stub(channel).HalfDuplexCall(each(*map(asking, RESPONSES)), timeout=SECONDS)
    assert await sizes(call) == list(RESPONSES)


@case
async def empty_stream(channel: Any) -> None:
    call = Stub(channel).FullDuplexCall(timeout=SECONDS)
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


@case
async def custom_metadata(channel: Any) -> None:
    sent = ((INITIAL, "test_initial_metadata_value"), (TRAILING, b"\xab\xab\xab"))
    stub = Stub(channel)
    unary = stub.UnaryCall(large(), metadata=sent, timeout=SECONDS)
    assert len((await unary).payload.body) == LARGE_RESPONSE
    duplex = stub.FullDuplexCall(each(asking(314159, size=271828)), metadata=sent, timeout=SECONDS)
    assert await sizes(duplex) == [314159]
    for call in (unary, duplex):
        assert dict(await call.initial_metadata())[INITIAL] == "test_initial_metadata_value"
        assert dict(await call.trailing_metadata())[TRAILING] == b"\xab\xab\xab"


async def _refused(call: Any, code: grpc.StatusCode, text: str | None = None) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        if isinstance(call, grpc.aio.UnaryUnaryCall):
            await call
        else:
            await sizes(call)
    assert caught.value.code() is code
    assert text is None or caught.value.details() == text


@case
async def status_code_and_message(channel: Any) -> None:
    status = EchoStatus(code=grpc.StatusCode.UNKNOWN.value[0], message="test status message")
    stub = Stub(channel)
    unary = stub.UnaryCall(SimpleRequest(response_status=status), timeout=SECONDS)
    await _refused(unary, grpc.StatusCode.UNKNOWN, "test status message")
    duplex = stub.FullDuplexCall(each(StreamingOutputCallRequest(response_status=status)), timeout=SECONDS)
    await _refused(duplex, grpc.StatusCode.UNKNOWN, "test status message")


@case
async def special_status_message(channel: Any) -> None:
    status = EchoStatus(code=grpc.StatusCode.UNKNOWN.value[0], message=SPECIAL)
    call = Stub(channel).UnaryCall(SimpleRequest(response_status=status), timeout=SECONDS)
    await _refused(call, grpc.StatusCode.UNKNOWN, SPECIAL)


@case
async def unimplemented_method(channel: Any) -> None:
    call = Stub(channel).UnimplementedCall(Empty(), timeout=SECONDS)
    await _refused(call, grpc.StatusCode.UNIMPLEMENTED)


@case
async def unimplemented_service(channel: Any) -> None:
    call = Stub(channel, "UnimplementedService").UnimplementedCall(Empty(), timeout=SECONDS)
    await _refused(call, grpc.StatusCode.UNIMPLEMENTED)


@case
async def cancel_after_begin(channel: Any) -> None:
    call = Stub(channel).StreamingInputCall(timeout=SECONDS)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert call.cancelled()
    assert await call.code() is grpc.StatusCode.CANCELLED


@case
async def cancel_after_first_response(channel: Any) -> None:
    call = Stub(channel).FullDuplexCall(timeout=SECONDS)
    await call.write(asking(31415, size=27182))
    assert len((await call.read()).payload.body) == 31415
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.read()
    assert await call.code() is grpc.StatusCode.CANCELLED


@case
async def timeout_on_sleeping_server(channel: Any) -> None:
    async def one_and_no_end() -> AsyncIterator[Any]:
        yield StreamingOutputCallRequest(payload=zeros(27182))
        await asyncio.Event().wait()

    call = Stub(channel).FullDuplexCall(one_and_no_end(), timeout=0.001)
    await _refused(call, grpc.StatusCode.DEADLINE_EXCEEDED)


@case
async def rpc_soak(channel: Any) -> None:
    """A short one: large calls, ten at a time, one after the other."""
    for _ in range(10):
        answers = await asyncio.gather(*(Stub(channel).UnaryCall(large(), timeout=SECONDS) for _ in range(10)))
        assert {len(answer.payload.body) for answer in answers} == {LARGE_RESPONSE}
