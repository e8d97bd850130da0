"""Interceptors of a server do the same on ours as on grpc.aio's: order, other handlers, other kinds, refusals."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from serve_echo import SERVICE, AsyncEcho, EchoStub, SyncEcho, add_echo_to_server
from serve_rig import native_server

from meshwright.dataplane.grpc import NativeServer

Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]
Serve = Callable[..., Any]
CALLER: contextvars.ContextVar[str] = contextvars.ContextVar("caller", default="nobody")


@contextlib.asynccontextmanager
async def grpcio_server(servicer: Any, **options: Any) -> AsyncIterator[tuple[Any, str]]:
    server = grpc.aio.server(**options)
    add_echo_to_server(servicer, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield server, address
    finally:
        await server.stop(0)


@pytest.fixture(params=["grpcio", "native"])
def serve(request: pytest.FixtureRequest) -> Serve:
    return grpcio_server if request.param == "grpcio" else native_server


class Notes(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Notes what it saw."""

    def __init__(self, name: str, notes: list[Any]) -> None:
        self._name, self._notes = name, notes

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Any:
        sent = [tuple(entry) for entry in details.invocation_metadata if entry[0].startswith("x-")]
        self._notes.append((self._name, "before", details.method, sent))
        handler = await continuation(details)
        self._notes.append((self._name, "after", handler is not None))
        return handler


class Answers(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Gives every call a handler of its own."""

    def __init__(self, handler: Any) -> None:
        self._handler = handler

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Any:
        return self._handler


async def _refuse(request: Any, context: Any) -> Any:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")


@pytest.mark.parametrize("servicer", [AsyncEcho, SyncEcho])
async def test_they_run_in_their_order(serve: Serve, servicer: type) -> None:
    """The first is asked first and hears last; all see the method and the metadata, of unknown methods too."""
    notes: list[Any] = []
    interceptors = [Notes("a", notes), Notes("b", notes)]
    async with (
        serve(servicer(), interceptors=interceptors) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub = EchoStub(channel)
        sent = [("x-a", "1")]
        assert await stub.unary("hello", metadata=sent, timeout=10) == "hello"
        method = f"/{SERVICE}/Unary"
        order = [
            ("a", "before", method, sent),
            ("b", "before", method, sent),
            ("b", "after", True),
            ("a", "after", True),
        ]
        assert notes == order
        notes.clear()
        assert [answer async for answer in stub.chat(iter("ab"), timeout=10)] == ["A", "B"]
        assert [answer async for answer in stub.download("2", timeout=10)] == ["0", "1"]
        assert await stub.upload(iter("ab"), timeout=10) == "a+b"
        assert len(notes) == 12
        notes.clear()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.unknown("", timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert notes[-1] == ("a", "after", False)


async def test_another_handler(serve: Serve) -> None:
    """A handler of the interceptor's own, also of another kind of call, and for methods that nobody has."""
    refusal = Answers(grpc.unary_unary_rpc_method_handler(_refuse))
    async with (
        serve(AsyncEcho(), interceptors=[refusal]) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub = EchoStub(channel)
        for call in (stub.unary("a", timeout=10), stub.unknown("a", timeout=10), stub.upload(iter("ab"), timeout=10)):
            with pytest.raises(grpc.aio.AioRpcError, match="who are you") as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.aio.AioRpcError, match="who are you"):
            await stub.download("3", timeout=10).read()


async def test_a_handler_of_another_kind(serve: Serve) -> None:
    """A unary method answered by a stream handler sees a stream of one request."""

    async def joins(requests: AsyncIterator[bytes], context: Any) -> bytes:
        return b"+".join([request async for request in requests])

    joined = Answers(grpc.stream_unary_rpc_method_handler(joins))
    async with serve(AsyncEcho(), interceptors=[joined]) as (_, address), grpc.aio.insecure_channel(address) as channel:
        assert await EchoStub(channel).unary("one", timeout=10) == "one"
        assert await EchoStub(channel).upload(iter("ab"), timeout=10) == "a+b"


class Names(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Tells the handler who calls by a context variable."""

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Any:
        CALLER.set("somebody")
        return await continuation(details)


class Tells(AsyncEcho):
    async def unary(self, request: str, context: Any) -> str:
        return CALLER.get()


async def test_context_variables_reach_the_handler(serve: Serve) -> None:
    """An async handler runs in its interceptors' task, and sees what they set; the next call doesn't."""
    async with serve(Tells(), interceptors=[Names()]) as (_, address), grpc.aio.insecure_channel(address) as channel:
        assert await EchoStub(channel).unary("", timeout=10) == "somebody"
    assert CALLER.get() == "nobody"


class Fails(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Any:
        raise LookupError("boom")


async def test_an_exception_of_an_interceptor(serve: Serve) -> None:
    """It is the call's, as a handler's is."""
    async with (
        serve(AsyncEcho(), interceptors=[Fails()]) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError, match="boom") as caught:
            await EchoStub(channel).unary("", timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNKNOWN


def test_what_is_no_interceptor_is_refused() -> None:
    """At once, as grpc.aio's server does, and by name."""
    with pytest.raises(ValueError, match="interceptors"):
        NativeServer("127.0.0.1:0", None, interceptors=[object()])  # type: ignore[list-item]
