"""Hedged calls (gRFC A6): sent again while no answer has come; the first server that answers has the call."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
from serve_echo import AsyncEcho, EchoStub
from serve_rig import native_channel, native_server, until
from serve_scripted import OK, End, Reset, Scripted, Silence, scripted

UNAVAILABLE, INTERNAL, REFUSED_STREAM = 14, 13, 7
NEVER = "1000s"


def policy(*, throttling: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    hedging = {"maxAttempts": 3, "hedgingDelay": "0.02s", "nonFatalStatusCodes": ["UNAVAILABLE"]} | changes
    config: dict[str, Any] = {"methodConfig": [{"name": [{}], "hedgingPolicy": hedging}]}
    return config | ({"retryThrottling": throttling} if throttling else {})


async def outcome(server: Scripted, config: dict[str, Any], times: int = 1) -> Any:
    """What one call says, or the last of several."""
    async with native_channel(server.address, service_config=config) as channel:
        for _ in range(times):
            call = EchoStub(channel).unary("hello", timeout=30)
            try:
                last = await call
            except grpc.aio.AioRpcError as error:
                last = error.code()
        await asyncio.sleep(0)
        return last


async def test_a_silent_server_gets_company() -> None:
    """After the delay; the server hears how many attempts there were, and that the first isn't wanted any more."""
    async with (
        scripted(Silence(), OK) as server,
        native_channel(server.address, service_config=policy(maxAttempts=2)) as channel,
    ):
        assert await EchoStub(channel).unary("hello", timeout=30) == "done"
        await until(lambda: server.resets == 1, 20)
    assert [request.header("grpc-previous-rpc-attempts") for request in server.requests] == [None, "1"]
    assert all(request.messages == [b"hello"] for request in server.requests)


async def test_all_at_once_without_a_delay() -> None:
    """As the gRFC says of a delay of nothing, or of none."""
    for delay in ({"hedgingDelay": "0s"}, {"hedgingDelay": None}):
        async with scripted(Silence(), Silence(), OK) as server:
            assert await outcome(server, policy(**delay)) == "done"
        assert len(server.requests) == 3


async def test_no_more_than_five_attempts() -> None:
    """A maxAttempts of more is taken as five."""
    async with scripted(then=End(UNAVAILABLE)) as server:
        assert await outcome(server, policy(maxAttempts=9)) is grpc.StatusCode.UNAVAILABLE
    assert len(server.requests) == 5


async def test_a_non_fatal_end_hastens_the_next() -> None:
    """It doesn't wait for the delay."""
    async with scripted(End(UNAVAILABLE), End(UNAVAILABLE), OK) as server:
        assert await outcome(server, policy(hedgingDelay=NEVER)) == "done"


async def test_any_other_end_is_the_calls() -> None:
    """Attempts that still run are cancelled."""
    async with (
        scripted(Silence(), End(INTERNAL)) as server,
        native_channel(server.address, service_config=policy(maxAttempts=2)) as channel,
    ):
        call = EchoStub(channel).unary("hello", timeout=30)
        assert await call.code() is grpc.StatusCode.INTERNAL
        await until(lambda: server.resets == 1, 20)
    assert len(server.requests) == 2


async def test_the_last_failure_is_the_calls() -> None:
    """When all attempts have failed."""
    async with (
        scripted(then=End(UNAVAILABLE, trailers=[("x-last", "yes")])) as server,
        native_channel(server.address, service_config=policy()) as channel,
    ):
        call = EchoStub(channel).unary("hello", timeout=30)
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        assert (await call.trailing_metadata())["x-last"] == "yes"
    assert len(server.requests) == 3


async def test_what_nobody_saw_is_sent_again() -> None:
    """A stream that the server refused has met no application."""
    async with scripted(Reset(REFUSED_STREAM), OK) as server:
        assert await outcome(server, policy(hedgingDelay=NEVER, nonFatalStatusCodes=[])) == "done"


async def test_a_server_may_want_no_more() -> None:
    """By a negative or unreadable pushback."""
    for pushback in ("-1", "soon"):
        async with scripted(then=End(UNAVAILABLE, trailers=[("grpc-retry-pushback-ms", pushback)])) as server:
            assert await outcome(server, policy(hedgingDelay=NEVER)) is grpc.StatusCode.UNAVAILABLE
        assert len(server.requests) == 1


async def test_a_server_may_say_when() -> None:
    """By its pushback, in place of at once."""
    async with scripted(End(UNAVAILABLE, trailers=[("grpc-retry-pushback-ms", "200")]), OK) as server:
        began = asyncio.get_running_loop().time()
        assert await outcome(server, policy(hedgingDelay=NEVER)) == "done"
        assert asyncio.get_running_loop().time() - began >= 0.2


async def test_failures_use_up_the_tokens() -> None:
    """Then there is one attempt a call."""
    config = policy(hedgingDelay=NEVER, throttling={"maxTokens": 4, "tokenRatio": 0.1})
    async with scripted(then=End(UNAVAILABLE)) as server:
        assert await outcome(server, config, times=3) is grpc.StatusCode.UNAVAILABLE
    assert len(server.requests) == 2 + 1 + 1  # 4 tokens, 3, and no more than half: 2


async def test_streams_of_requests_reach_each_attempt() -> None:
    """Whatever has been written so far, and what follows."""

    def requests() -> Iterator[str]:
        yield from ("a", "b", "c")

    async with (
        scripted(Silence(), Silence(), OK) as server,
        native_channel(server.address, service_config=policy()) as channel,
    ):
        assert await EchoStub(channel).upload(requests(), timeout=30) == "done"
    *given_up, last = [request.messages for request in server.requests]
    assert last == [b"a", b"b", b"c"]
    assert all(last[: len(messages)] == messages for messages in given_up)


async def test_a_conversation_is_one_servers(echo: AsyncEcho) -> None:
    """From its first answer on; what was sent to the others is cancelled there."""
    async with (
        native_server(echo) as (server, address),
        native_channel(address, service_config=policy(hedgingDelay="0s")) as channel,
    ):
        chat = EchoStub(channel).chat(timeout=30)
        for text in "abc":
            await chat.write(text)
            assert await chat.read() == text.upper()
        await chat.done_writing()
        assert await chat.read() is grpc.aio.EOF
        assert await chat.code() is grpc.StatusCode.OK
        await until(lambda: server.stats()["calls_open"] == 0, 20)
        assert server.stats()["calls_started"] <= 3


async def test_a_cancelled_call_cancels_all_attempts() -> None:
    """None goes on without its caller."""
    async with (
        scripted(then=Silence()) as server,
        native_channel(server.address, service_config=policy(hedgingDelay="0s")) as channel,
    ):
        call = EchoStub(channel).unary("hello", timeout=30)
        await until(lambda: len(server.requests) == 3, 20)
        call.cancel()
        await until(lambda: server.resets == 3, 20)
