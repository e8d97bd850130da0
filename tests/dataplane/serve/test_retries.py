"""Calls that are tried again: by the service config's policy, and once unasked when no server has seen them.

What grpc.aio's channel does as well is tested on both.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from serve_echo import EchoStub
from serve_scripted import OK, Drop, End, GoAway, Reset, Silence, scripted

from meshwright.dataplane.grpc import ChannelOptions, NativeChannel

UNAVAILABLE, INTERNAL = 14, 13
REFUSED_STREAM, ENHANCE = 7, 11

Open = Callable[..., EchoStub]


def policy(**changes: Any) -> dict[str, Any]:
    retry = {
        "maxAttempts": 4,
        "initialBackoff": "0.01s",
        "maxBackoff": "0.02s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    return {"methodConfig": [{"name": [{}], "retryPolicy": retry | changes}]}


@pytest.fixture(params=["native", "grpcio"])
async def open_stub(request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    """Return what opens a channel of either make with a service config."""
    channels: list[Any] = []

    def opened(address: str, config: dict[str, Any] | None = None) -> EchoStub:
        if request.param == "native":
            channels.append(NativeChannel(address, None, service_config=config))
        else:
            options = [("grpc.service_config", json.dumps(config or {}))]
            channels.append(grpc.aio.insecure_channel(address, options))
        return EchoStub(channels[-1])

    yield opened
    for channel in channels:
        await channel.close()


async def code_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    code: grpc.StatusCode = caught.value.code()
    return code


async def test_until_it_goes_well(open_stub: Open) -> None:
    """A retryable status is tried again; the server hears how many attempts there were before."""
    async with scripted(End(UNAVAILABLE), End(UNAVAILABLE)) as server:
        assert await open_stub(server.address, policy()).unary("hello", timeout=10) == "done"
    assert [request.header("grpc-previous-rpc-attempts") for request in server.requests] == [None, "1", "2"]
    assert all(request.messages == [b"hello"] for request in server.requests)


async def test_the_attempts_end(open_stub: Open) -> None:
    """After maxAttempts the last status is the call's."""
    async with scripted(then=End(UNAVAILABLE, trailers=[("x-last", "yes")])) as server:
        call = open_stub(server.address, policy(maxAttempts=3)).unary("hello", timeout=10)
        assert await code_of(call) is grpc.StatusCode.UNAVAILABLE
        assert (await call.trailing_metadata())["x-last"] == "yes"
    assert len(server.requests) == 3


async def test_no_more_than_five_attempts(open_stub: Open) -> None:
    """As gRFC A6 says: a maxAttempts of more than five is taken as five."""
    async with scripted(then=End(UNAVAILABLE)) as server:
        await code_of(open_stub(server.address, policy(maxAttempts=9)).unary("hello", timeout=10))
    assert len(server.requests) == 5


async def test_other_statuses_are_final(open_stub: Open) -> None:
    """What isn't in retryableStatusCodes is the caller's."""
    async with scripted(End(INTERNAL)) as server:
        assert await code_of(open_stub(server.address, policy()).unary("hello", timeout=10)) is grpc.StatusCode.INTERNAL
    assert len(server.requests) == 1


async def test_a_begun_answer_is_final(open_stub: Open) -> None:
    """Once the server has begun to answer, the call is committed."""
    async with scripted(End(UNAVAILABLE, begun=True)) as server:
        code = await code_of(open_stub(server.address, policy()).unary("hello", timeout=10))
        assert code is grpc.StatusCode.UNAVAILABLE
    assert len(server.requests) == 1


async def test_the_server_says_when(open_stub: Open) -> None:
    """grpc-retry-pushback-ms overrides the back-off."""
    config = policy(initialBackoff="30s", maxBackoff="30s")
    async with scripted(End(UNAVAILABLE, trailers=[("grpc-retry-pushback-ms", "1")])) as server:
        assert await open_stub(server.address, config).unary("hello", timeout=10) == "done"
    assert len(server.requests) == 2


async def test_the_server_says_never(open_stub: Open) -> None:
    """A negative pushback ends the call."""
    async with scripted(End(UNAVAILABLE, trailers=[("grpc-retry-pushback-ms", "-1")])) as server:
        code = await code_of(open_stub(server.address, policy()).unary("hello", timeout=10))
        assert code is grpc.StatusCode.UNAVAILABLE
    assert len(server.requests) == 1


async def test_an_unreadable_pushback_is_a_never() -> None:
    """As gRFC A6 says; grpcio ends such a call with an error of its own."""
    async with (
        scripted(End(UNAVAILABLE, trailers=[("grpc-retry-pushback-ms", "soon")])) as server,
        NativeChannel(server.address, None, service_config=policy()) as channel,
    ):
        assert await code_of(EchoStub(channel).unary("hello", timeout=10)) is grpc.StatusCode.UNAVAILABLE
    assert len(server.requests) == 1


async def test_the_deadline_ends_the_waiting(open_stub: Open) -> None:
    """The deadline is the whole call's: a back-off doesn't outlast it."""
    config = policy(initialBackoff="60s", maxBackoff="60s")
    async with scripted(then=End(UNAVAILABLE)) as server:
        begun = time.monotonic()
        code = await code_of(open_stub(server.address, config).unary("hello", timeout=0.3))
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - begun < 10
    assert len(server.requests) == 1


async def test_failures_use_up_the_tokens(open_stub: Open) -> None:
    """Retry throttling: with half of the tokens gone calls fail at once."""
    config = policy() | {"retryThrottling": {"maxTokens": 4, "tokenRatio": 1}}
    async with scripted(then=End(UNAVAILABLE)) as server:
        stub = open_stub(server.address, config)
        await code_of(stub.unary("hello", timeout=10))
        assert len(server.requests) == 2  # 4 tokens: 3 after the first, 2 after the second
        await code_of(stub.unary("hello", timeout=10))
        assert len(server.requests) == 3


async def test_a_cut_connection_is_unavailable(open_stub: Open) -> None:
    """A call that the server may have begun with is tried again only because the policy says so."""
    async with scripted(Drop()) as server:
        assert await open_stub(server.address, policy()).unary("hello", timeout=10) == "done"
    async with scripted(Drop()) as server:
        assert await code_of(open_stub(server.address).unary("hello", timeout=10)) is grpc.StatusCode.UNAVAILABLE
    assert len(server.requests) == 1


async def test_what_a_goaway_excludes_is_repeated(open_stub: Open) -> None:
    """A call beyond a GOAWAY's last stream goes again by itself, and that doesn't count."""
    async with scripted(GoAway()) as server:
        assert await open_stub(server.address).unary("hello", timeout=10) == "done"
    assert [request.header("grpc-previous-rpc-attempts") for request in server.requests] == [None, None]


async def test_what_was_refused_is_repeated() -> None:
    """So does a refused stream, which grpcio gives up."""
    async with scripted(Reset(REFUSED_STREAM)) as server, NativeChannel(server.address, None) as channel:
        assert await EchoStub(channel).unary("hello", timeout=10) == "done"
    assert [request.header("grpc-previous-rpc-attempts") for request in server.requests] == [None, None]


async def test_refused_for_ever() -> None:
    """A server that refuses everything gets the call twice, not more."""
    async with scripted(then=Reset(REFUSED_STREAM)) as server, NativeChannel(server.address, None) as channel:
        assert await code_of(EchoStub(channel).unary("hello", timeout=10)) is grpc.StatusCode.UNAVAILABLE
    assert len(server.requests) == 2


async def test_other_resets_are_final(open_stub: Open) -> None:
    """A reset by another reason is no refusal."""
    async with scripted(Reset(ENHANCE)) as server:
        code = await code_of(open_stub(server.address).unary("hello", timeout=10))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(server.requests) == 1


async def test_requests_of_a_stream_are_repeated(open_stub: Open) -> None:
    """A streaming call's requests are kept and sent again."""
    async with scripted(End(UNAVAILABLE), Reset(REFUSED_STREAM)) as server:
        stub = open_stub(server.address, policy())
        assert await stub.upload(iter(["a", "b", "c"]), timeout=10) == "done"
    assert [request.messages for request in server.requests] == [[b"a", b"b", b"c"]] * 3


async def test_requests_go_on_after_a_failure(open_stub: Open) -> None:
    """Requests that are written while attempts fail reach the last one, in order."""
    async with scripted(End(UNAVAILABLE), Silence(), at_headers=True) as server:
        call = open_stub(server.address, policy()).upload(timeout=10)
        await call.write("a")
        await call.write("b")
        await call.done_writing()
        async with asyncio.timeout(10):
            while len(server.requests) < 2 or len(server.requests[1].messages) < 2:
                await asyncio.sleep(0)
        assert server.requests[1].messages == [b"a", b"b"]
        call.cancel()


async def test_a_stream_of_responses_is_repeated_from_its_beginning(open_stub: Open) -> None:
    """Responses come from one attempt only."""
    async with scripted(End(UNAVAILABLE), End(messages=[b"1", b"2"])) as server:
        stub = open_stub(server.address, policy())
        assert [response async for response in stub.download("2", timeout=10)] == ["1", "2"]


async def test_what_was_read_is_never_repeated(open_stub: Open) -> None:
    """A stream that fails after its first response fails for the caller."""
    async with scripted(End(UNAVAILABLE, messages=[b"1"])) as server:
        call = open_stub(server.address, policy()).download("2", timeout=10)
        assert await call.read() == "1"
        assert await code_of(call.read()) is grpc.StatusCode.UNAVAILABLE
    assert len(server.requests) == 1


async def test_more_than_the_buffer_is_final() -> None:
    """A call that has sent more than is kept can't be repeated."""
    options = ChannelOptions(retry_buffer=10)
    async with (
        scripted(End(UNAVAILABLE)) as server,
        NativeChannel(server.address, None, service_config=policy(), options=options) as channel,
    ):
        code = await code_of(EchoStub(channel).upload(iter(["a" * 20]), timeout=10))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert len(server.requests) == 1


async def test_no_address_is_tried_again(tmp_path: Any) -> None:
    """A call that finds no connection is tried again by the policy too."""
    config = policy(maxAttempts=2, initialBackoff="0.05s", maxBackoff="0.05s")
    address = f"unix:{tmp_path}/nobody.sock"
    async with NativeChannel(address, None, service_config=config) as channel:
        begun = time.monotonic()
        assert await code_of(EchoStub(channel).unary("hello", timeout=10)) is grpc.StatusCode.UNAVAILABLE
        assert time.monotonic() - begun >= 0.04


async def test_one_bad_call_among_many() -> None:
    """A refused call leaves the others of its connection alone."""
    async with scripted(OK, Reset(REFUSED_STREAM)) as server, NativeChannel(server.address, None) as channel:
        stub = EchoStub(channel)
        assert await stub.unary("first", timeout=10) == "done"
        assert await asyncio.gather(*(stub.unary(str(index), timeout=10) for index in range(20))) == ["done"] * 20
        assert server.connections == 1
