"""Interceptors of clients: what grpc.aio's channel does with them, ours does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from serve_echo import AsyncEcho, EchoStub
from serve_rig import native_server

from meshwright.dataplane.grpc import NativeChannel

Open = Callable[..., Any]


@pytest.fixture(params=["native", "grpcio"])
async def open_channel(request: pytest.FixtureRequest, echo: AsyncEcho) -> AsyncIterator[Open]:
    """Return what opens a channel of either make with interceptors."""
    channels: list[Any] = []
    async with native_server(echo) as (_, address):

        def opened(*interceptors: Any) -> EchoStub:
            if request.param == "native":
                channels.append(NativeChannel(address, None, interceptors=interceptors))
            else:
                channels.append(grpc.aio.insecure_channel(address, interceptors=interceptors))
            return EchoStub(channels[-1])

        yield opened
        for channel in channels:
            await channel.close()


def with_metadata(details: Any, key: str, value: str) -> Any:
    metadata = grpc.aio.Metadata(*(details.metadata or ()))
    metadata.add(key, value)
    return grpc.aio.ClientCallDetails(
        details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
    )


class Naming(grpc.aio.UnaryUnaryClientInterceptor):
    """Adds its name to the metadata and to the list of what happened."""

    def __init__(self, name: str, seen: list[str]) -> None:
        self.name, self.seen = name, seen

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        assert details.method == b"/meshwright.test.Echo/Unary"
        self.seen.append(f"{self.name} begins")
        call = await continuation(with_metadata(details, f"x-{self.name}", "was here"), request)
        assert await call.code() is grpc.StatusCode.OK
        self.seen.append(f"{self.name} ends")
        return call


async def test_the_first_is_outermost(open_channel: Open) -> None:
    """Interceptors run in order; what they add to the metadata arrives."""
    seen: list[str] = []
    call = open_channel(Naming("a", seen), Naming("b", seen)).unary("metadata", timeout=10, metadata=(("x-own", "1"),))
    ended = asyncio.Event()
    call.add_done_callback(lambda _: ended.set())
    assert await call == "metadata"
    assert seen == ["a begins", "b begins", "b ends", "a ends"]
    initial = await call.initial_metadata()
    assert (initial["x-own"], initial["x-a"], initial["x-b"]) == ("1", "was here", "was here")
    assert (await call.trailing_metadata())["trailer"] == "end"
    assert await call.code() is grpc.StatusCode.OK
    assert call.done()
    assert not call.cancelled()
    await asyncio.wait_for(ended.wait(), 10)


class Answering(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        if request == "known":
            return "by heart"
        return await continuation(details, request)


async def test_an_answer_without_a_call(open_channel: Open) -> None:
    """An interceptor may answer by itself."""
    stub = open_channel(Answering())
    call = stub.unary("known", timeout=10)
    assert await call == "by heart"
    assert await call.code() is grpc.StatusCode.OK
    assert await stub.unary("unknown", timeout=10) == "unknown"


class Refusing(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        if request == "value":
            raise ValueError("not this one")
        return await (await continuation(details, request))


async def test_errors(open_channel: Open) -> None:
    """Errors of an interceptor and of the call inside it reach the caller."""
    stub = open_channel(Refusing())
    with pytest.raises(ValueError, match="not this one"):
        await stub.unary("value", timeout=10)
    call = stub.unary("abort NOT_FOUND", timeout=10)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert await call.code() is grpc.StatusCode.NOT_FOUND
    assert "as you asked" in (await call.details())
    assert (await call.trailing_metadata())["why"] == "asked"
    assert call.done()


class Stalling(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self) -> None:
        self.reached = asyncio.Event()

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self.reached.set()
        await asyncio.Event().wait()


async def test_cancelled_in_an_interceptor(open_channel: Open) -> None:
    """A call that an interceptor still holds can be cancelled."""
    stalling = Stalling()
    call = open_channel(stalling).unary("hello", timeout=10)
    await asyncio.wait_for(stalling.reached.wait(), 10)
    assert not call.done()
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert call.cancelled()
    assert await call.code() is grpc.StatusCode.CANCELLED


async def test_cancelled_behind_interceptors(open_channel: Open, echo: AsyncEcho) -> None:
    """Cancelling an intercepted call reaches the server."""
    call = open_channel(Answering()).unary("wait", timeout=30)
    await asyncio.wait_for(echo.started.wait(), 10)
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.wait_for(echo.cancelled.wait(), 10)


class Shouting(grpc.aio.UnaryStreamClientInterceptor):
    """Changes responses by an iterator of its own."""

    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        call = await continuation(details, request)

        async def louder() -> AsyncIterator[str]:
            async for response in call:
                yield f"{response}!"

        return louder()


class Passing(grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(details, request)


async def test_responses_of_a_stream(open_channel: Open) -> None:
    """A stream's responses pass through, also when an interceptor puts an iterator in front of them."""
    stub = open_channel(Shouting(), Passing())
    call = stub.download("3", timeout=10)
    assert [response async for response in call] == ["0!", "1!", "2!"]
    assert await call.code() is grpc.StatusCode.OK
    call = open_channel(Passing()).download("2", timeout=10)
    assert [await call.read(), await call.read(), await call.read()] == ["0", "1", grpc.aio.EOF]


class Doubling(grpc.aio.StreamUnaryClientInterceptor):
    """Sends each request twice."""

    async def intercept_stream_unary(self, continuation: Any, details: Any, requests: Any) -> Any:
        return await continuation(details, doubled(requests))


class DoublingChat(grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return await continuation(details, doubled(requests))


async def doubled(requests: Any) -> AsyncIterator[str]:
    async for request in requests:
        yield request
        yield request


async def words() -> AsyncIterator[str]:
    for word in ("a", "b"):
        yield word


async def test_requests_of_a_stream(open_channel: Open) -> None:
    """Interceptors see written requests as an iterator and may replace it."""
    stub = open_channel(Doubling(), DoublingChat())
    assert await stub.upload(words(), timeout=10) == "a+a+b+b"
    call = stub.upload(timeout=10)
    await call.write("x")
    await call.done_writing()
    assert await call == "x+x"
    assert [response async for response in stub.chat(words(), timeout=10)] == ["A", "A", "B", "B"]
    chat = stub.chat(timeout=10)
    await chat.write("y")
    assert [await chat.read(), await chat.read()] == ["Y", "Y"]
    await chat.done_writing()
    assert await chat.read() is grpc.aio.EOF
    with pytest.raises(asyncio.InvalidStateError):
        await chat.write("late")


async def test_the_wrong_kind(open_channel: Open) -> None:
    """What is no interceptor is refused by name."""
    with pytest.raises(ValueError, match="UnaryUnaryClientInterceptor"):
        open_channel(object())


async def test_several_kinds_in_one(echo: AsyncEcho) -> None:
    """Ours uses an interceptor for each kind that it implements; grpc.aio for the first only."""

    class Both(Shouting, grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            return f"{await (await continuation(details, request))}!"

    async with native_server(echo) as (_, address), NativeChannel(address, None, interceptors=[Both()]) as channel:
        stub = EchoStub(channel)
        assert await stub.unary("a", timeout=10) == "a!"
        assert [response async for response in stub.download("1", timeout=10)] == ["0!"]
