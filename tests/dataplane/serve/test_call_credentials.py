"""Call credentials of grpcio on both makes of channel: what plugins make goes with the call, over TLS only."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from serve_echo import AsyncEcho, EchoStub
from serve_rig import CLIENT_ID, NAME, SERVER_ID, grpcio_credentials, native_server

from meshwright.core.identity import StaticIdentity
from meshwright.dataplane.grpc import NativeChannel

Answer = Callable[[Any], None]


class Plugin(grpc.AuthMetadataPlugin):
    """Answers as it is told, and keeps what it was asked."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.asked: list[Any] = []

    def __call__(self, context: Any, callback: Any) -> None:
        self.asked.append(context)
        self._answer(callback)


def credentials(answer: Answer) -> grpc.CallCredentials:
    return grpc.metadata_call_credentials(Plugin(answer))


def token(callback: Any) -> None:
    callback((("x-token", "t"), ("x-raw-bin", b"\x00\xff")), None)


@pytest.fixture(params=["native", "grpcio"])
async def channel(
    request: pytest.FixtureRequest,
    echo: AsyncEcho,
    server_identity: StaticIdentity,
    client_identity: StaticIdentity,
) -> AsyncIterator[Any]:
    async with native_server(echo, identity=server_identity) as (_, address):
        if request.param == "native":
            opened: Any = NativeChannel(address, client_identity, peer=SERVER_ID)
        else:
            options = [("grpc.ssl_target_name_override", NAME)]
            opened = grpc.aio.secure_channel(address, grpcio_credentials(client_identity), options)
        async with opened:
            yield opened


async def sent(call: Any) -> list[tuple[str, Any]]:
    """The metadata that came to the handler, as it sends it back."""
    await call
    return [(key, value) for key, value in await call.initial_metadata() if key.startswith("x-")]


async def test_what_the_plugin_makes_follows_the_calls_own(channel: Any) -> None:
    """In its order, also bytes; and again at the next call."""
    made, stub = credentials(token), EchoStub(channel)
    for _ in range(2):
        call = stub.unary("metadata", timeout=30, credentials=made, metadata=(("x-own", "o"),))
        assert await sent(call) == [("x-own", "o"), ("x-token", "t"), ("x-raw-bin", b"\x00\xff")]


async def test_the_plugin_is_told_the_method(channel: Any) -> None:
    """As grpcio names it: the service's URL without the method, and the method."""
    plugin = Plugin(token)
    await EchoStub(channel).unary("a", timeout=30, credentials=grpc.metadata_call_credentials(plugin))
    (context,) = plugin.asked
    assert context.method_name == "Unary"
    assert context.service_url.startswith("https://")
    assert context.service_url.endswith("/meshwright.test.Echo")


async def test_it_may_answer_later(channel: Any) -> None:
    """From a thread of its own."""
    later = credentials(lambda callback: threading.Timer(0.05, token, (callback,)).start())
    call = EchoStub(channel).unary("metadata", timeout=30, credentials=later)
    assert ("x-token", "t") in await sent(call)


async def test_several_are_asked_in_turn(channel: Any) -> None:
    """Composite credentials, and a plain token."""
    both = grpc.composite_call_credentials(credentials(token), credentials(lambda back: back((("x-b", "2"),), None)))
    call = EchoStub(channel).unary("metadata", timeout=30, credentials=both)
    assert [key for key, _ in await sent(call)] == ["x-token", "x-raw-bin", "x-b"]


async def test_a_token_goes_as_authorization(server_identity: StaticIdentity, client_identity: StaticIdentity) -> None:
    """What grpcio's own `access_token_call_credentials` makes."""

    class Sees(AsyncEcho):
        async def unary(self, request: str, context: Any) -> str:
            return str(dict(context.invocation_metadata())["authorization"])

    async with (
        native_server(Sees(), identity=server_identity) as (_, address),
        NativeChannel(address, client_identity, peer=SERVER_ID) as channel,
    ):
        call = EchoStub(channel).unary("a", timeout=30, credentials=grpc.access_token_call_credentials("secret"))
        assert await call == "Bearer secret"


def fail(callback: Any) -> None:
    callback((), ValueError("no token"))


def break_(callback: Any) -> None:
    raise ValueError("no token")


@pytest.mark.parametrize("answer", [fail, break_])
async def test_a_plugin_that_fails_ends_the_call(channel: Any, answer: Answer) -> None:
    """UNAVAILABLE with its reason."""
    call = EchoStub(channel).unary("a", timeout=30, credentials=credentials(answer))
    with pytest.raises(
        grpc.aio.AioRpcError, match="Getting metadata from plugin failed with error: no token"
    ) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_its_time_is_the_calls(channel: Any) -> None:
    """A plugin that never answers ends with the deadline."""
    call = EchoStub(channel).unary("a", timeout=0.2, credentials=credentials(lambda callback: None))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_streams_carry_them_too(channel: Any) -> None:
    """Written one by one, or from an iterator."""
    made, stub = credentials(token), EchoStub(channel)
    chat = stub.chat(timeout=30, credentials=made)
    await chat.write("a")
    assert await chat.read() == "A"
    await chat.done_writing()
    assert await chat.code() is grpc.StatusCode.OK
    assert await stub.upload(iter(["a", "b"]), timeout=30, credentials=made) == "a+b"
    assert [text async for text in stub.download("2", timeout=30, credentials=made)] == ["0", "1"]


@pytest.mark.parametrize("make", [lambda address: NativeChannel(address, None), grpc.aio.insecure_channel])
async def test_not_over_plain_text(echo: AsyncEcho, make: Callable[[str], Any]) -> None:
    """A token that anybody could read isn't sent."""
    async with native_server(echo) as (_, address), make(address) as channel:
        with pytest.raises(grpc.aio.UsageError, match="Call credentials are only valid on secure channels"):
            await EchoStub(channel).unary("a", timeout=30, credentials=credentials(token))


async def test_they_are_asked_after_the_interceptors(
    echo: AsyncEcho, server_identity: StaticIdentity, client_identity: StaticIdentity
) -> None:
    """An interceptor sees the credentials and may replace them."""
    seen = []

    class Replaces(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            seen.append(details.credentials)
            other = credentials(lambda back: back((("x-other", "1"),), None))
            return await continuation(details._replace(credentials=other), request)

    async with (
        native_server(echo, identity=server_identity) as (_, address),
        NativeChannel(address, client_identity, peer=SERVER_ID, interceptors=[Replaces()]) as channel,
    ):
        given = credentials(token)
        call = EchoStub(channel).unary("metadata", timeout=30, credentials=given)
        assert await sent(call) == [("x-other", "1")]
        assert seen == [given]
        assert await EchoStub(channel).unary("caller", timeout=30) == CLIENT_ID


async def test_what_has_no_plugin_is_refused(
    echo: AsyncEcho, server_identity: StaticIdentity, client_identity: StaticIdentity
) -> None:
    """By name."""
    async with (
        native_server(echo, identity=server_identity) as (_, address),
        NativeChannel(address, client_identity, peer=SERVER_ID) as channel,
    ):
        wrong: Any = object()
        with pytest.raises(grpc.aio.UsageError, match="has no metadata plugin"):
            await EchoStub(channel).unary("a", timeout=30, credentials=wrong)
