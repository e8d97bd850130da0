"""The same calls by grpc.aio's channel and by ours, against one server: the caller sees the same."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from serve_echo import AsyncEcho, EchoStub, add_echo_to_server
from serve_rig import native_server
from serve_scripted import Drop, End, GoAway, Reset, scripted

from meshwright.dataplane.grpc import NativeChannel

MAKES: dict[str, Callable[[str], Any]] = {
    "native": lambda target: NativeChannel(target, None),
    "grpcio": grpc.aio.insecure_channel,
}


@contextlib.asynccontextmanager
async def grpcio_server(servicer: Any) -> AsyncIterator[str]:
    server = grpc.aio.server()
    add_echo_to_server(servicer, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield address
    finally:
        await server.stop(0)


@contextlib.asynccontextmanager
async def our_server(servicer: Any) -> AsyncIterator[str]:
    async with native_server(servicer) as (_, address):
        yield address


@pytest.fixture(params=["native server", "grpcio server"])
async def address(request: pytest.FixtureRequest, echo: AsyncEcho) -> AsyncIterator[str]:
    served = our_server if request.param == "native server" else grpcio_server
    async with served(echo) as address:
        yield address


def own(metadata: Any) -> list[tuple[str, Any]]:
    """The metadata that the application sent."""
    return sorted((key, value) for key, value in metadata or () if key.startswith(("x-", "trailer", "why")))


async def seen(awaited: Awaitable[Any]) -> tuple[str, Any]:
    """What comes of waiting."""
    try:
        return "result", await awaited
    except grpc.aio.AioRpcError as error:
        return "error", (error.code(), own(error.initial_metadata()), own(error.trailing_metadata()))
    except asyncio.CancelledError:
        return "cancelled", None
    except (asyncio.InvalidStateError, grpc.aio.UsageError) as error:
        return "usage", type(error).__name__


async def ended(call: Any) -> list[Any]:
    """What a call says of itself after its end."""
    return [
        await call.code(),
        own(await call.initial_metadata()),
        own(await call.trailing_metadata()),
        call.done(),
        call.cancelled(),
        call.cancel(),
    ]


async def read_all(call: Any) -> list[Any]:
    found = []
    async for response in call:
        found.append(response)
    return found


async def unary(stub: EchoStub, echo: AsyncEcho) -> Any:
    call = stub.unary("hello", timeout=10)
    return [await seen(call), await ended(call), call.time_remaining() is not None]


async def metadata(stub: EchoStub, echo: AsyncEcho) -> Any:
    sent = (("x-text", "a b"), ("x-many", "1"), ("x-many", "2"), ("x-raw-bin", b"\x00\x01\xff"))
    call = stub.unary("metadata", timeout=10, metadata=sent)
    return [own(await call.initial_metadata()), await seen(call), await ended(call)]


async def aborted(stub: EchoStub, echo: AsyncEcho) -> Any:
    found = []
    for code in grpc.StatusCode:
        if code is not grpc.StatusCode.OK:
            call = stub.unary(f"abort {code.name}", timeout=10)
            found += [await seen(call), await call.details(), await ended(call)]
    return found


async def failing(stub: EchoStub, echo: AsyncEcho) -> Any:
    call = stub.unary("fail", timeout=10)
    return [await seen(call), await ended(call)]


async def code_set(stub: EchoStub, echo: AsyncEcho) -> Any:
    call = stub.unary("set", timeout=10)
    return [await seen(call), await call.details(), await ended(call)]


async def unknown(stub: EchoStub, echo: AsyncEcho) -> Any:
    call = stub.unknown("hello", timeout=10)
    return [await seen(call), await ended(call)]


async def deadline(stub: EchoStub, echo: AsyncEcho) -> Any:
    call = stub.unary("wait", timeout=0.1)
    found = [await seen(call), await ended(call)]
    stream = stub.download("forever", timeout=0.1)
    return [*found, (await seen(read_all(stream)))[0], await ended(stream)]


async def cancelled(stub: EchoStub, echo: AsyncEcho) -> Any:
    call = stub.unary("wait", timeout=10)
    await asyncio.wait_for(echo.started.wait(), 10)
    found = [call.cancel(), await seen(call), await ended(call), await call.details()]
    await asyncio.wait_for(echo.cancelled.wait(), 10)
    return found


async def cancelled_by_waiter(stub: EchoStub, echo: AsyncEcho) -> Any:
    call = stub.unary("wait", timeout=10)

    async def wait() -> None:
        await call

    waiter = asyncio.create_task(wait())
    await asyncio.wait_for(echo.started.wait(), 10)
    waiter.cancel()
    found = [await seen(waiter), await ended(call)]
    await asyncio.wait_for(echo.cancelled.wait(), 10)
    return found


async def cancelled_stream(stub: EchoStub, echo: AsyncEcho) -> Any:
    call = stub.download("forever", timeout=10)
    first = await call.read()
    found = [first, call.cancel(), await seen(call.read()), await ended(call)]
    await asyncio.wait_for(echo.cancelled.wait(), 10)
    return found


async def cancelled_chat(stub: EchoStub, echo: AsyncEcho) -> Any:
    """While the server waits for another request, and the caller's side is open."""
    call = stub.chat(timeout=30)
    await call.write("a")
    found = [await call.read(), call.cancel(), await seen(call.read()), await ended(call)]
    await asyncio.wait_for(echo.cancelled.wait(), 10)
    return found


async def download(stub: EchoStub, echo: AsyncEcho) -> Any:
    call = stub.download("5", timeout=10)
    found = [await seen(read_all(call)), await ended(call)]
    call = stub.download("2", timeout=10)
    return [*found, [await call.read() for _ in range(3)], await ended(call)]


async def upload(stub: EchoStub, echo: AsyncEcho) -> Any:
    async def words() -> AsyncIterator[str]:
        yield "x"
        yield "y"

    found = []
    for requests in (iter("abc"), words(), []):
        call = stub.upload(requests, timeout=10)
        found += [await seen(call), await ended(call)]
    call = stub.upload(timeout=10)
    await call.write("z")
    await call.done_writing()
    return [*found, await seen(call), await ended(call), await seen(call.write("late"))]


async def chat(stub: EchoStub, echo: AsyncEcho) -> Any:
    call = stub.chat(timeout=10)
    found = []
    for word in ("one", "two"):
        await call.write(word)
        found.append(await call.read())
    await call.done_writing()
    found += [await call.read(), await ended(call), await seen(call.write("late"))]
    call = stub.chat(iter("ab"), timeout=10)
    return [*found, await seen(read_all(call)), await ended(call), await seen(call.write("own"))]


async def ended_early(stub: EchoStub, echo: AsyncEcho) -> Any:
    call = stub.chat(timeout=10)
    await call.write("a")
    return [await call.read(), call.cancel(), await seen(call.write("b")), await seen(call.read()), await ended(call)]


async def called_back(stub: EchoStub, echo: AsyncEcho) -> Any:
    told = asyncio.Event()
    call = stub.unary("hello", timeout=10)
    call.add_done_callback(lambda _: told.set())
    found = await seen(call)
    await asyncio.wait_for(told.wait(), 10)
    return found


async def awaited_twice(stub: EchoStub, echo: AsyncEcho) -> Any:
    call = stub.unary("hello", timeout=10)
    failing = stub.unary("abort NOT_FOUND", timeout=10)
    return [await seen(call), await seen(call), await seen(failing), await seen(failing)]


SCENARIOS = [
    unary,
    metadata,
    aborted,
    failing,
    code_set,
    unknown,
    deadline,
    cancelled,
    cancelled_by_waiter,
    cancelled_stream,
    cancelled_chat,
    download,
    upload,
    chat,
    ended_early,
    called_back,
    awaited_twice,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_both_see_the_same(address: str, echo: AsyncEcho, scenario: Any) -> None:
    """One scenario by either channel."""
    found = {}
    for make, opened in MAKES.items():
        echo.started.clear()
        echo.cancelled.clear()
        async with opened(address) as channel:
            found[make] = await asyncio.wait_for(scenario(EchoStub(channel), echo), 60)
    assert found["native"] == found["grpcio"]


@pytest.mark.parametrize(
    "deed", [Drop(), GoAway(), Reset(8), Reset(2), Reset(11), End(5), End(14, begun=True)], ids=repr
)
async def test_both_see_the_same_of_a_server_that_goes(deed: Any) -> None:
    """Cut connections, GOAWAY, resets and bare trailers mean the same to both."""
    found = {}
    for make, opened in MAKES.items():
        async with scripted(deed) as server, opened(server.address) as channel:
            stub = EchoStub(channel)
            call = stub.unary("first", timeout=10)
            found[make] = [await seen(call), await call.code()]
            if isinstance(deed, Drop):  # grpcio may still take the dead connection before it has noticed
                await asyncio.wait_for(channel.wait_for_state_change(grpc.ChannelConnectivity.READY), 20)
            found[make].append(await seen(stub.unary("second", timeout=10)))
    assert found["native"] == found["grpcio"]


async def test_both_see_the_same_of_nobody() -> None:
    """No server: UNAVAILABLE at once, DEADLINE_EXCEEDED for who waits, and the same states on the way."""
    found = {}
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        for make, opened in MAKES.items():
            async with opened(f"127.0.0.1:{bound.getsockname()[1]}") as channel:
                stub = EchoStub(channel)
                states = [channel.get_state()]
                calls = [
                    await seen(stub.unary("hello", timeout=20)),
                    await seen(stub.unary("hello", timeout=0.2, wait_for_ready=True)),
                    await seen(read_all(stub.download("3", timeout=20))),
                ]
                states.append(channel.get_state())
            found[make] = [states, calls, channel.get_state()]
    assert found["native"] == found["grpcio"]


async def test_both_see_the_same_states(echo: AsyncEcho) -> None:
    """IDLE, then READY after a call, IDLE when the server went, SHUTDOWN when closed."""
    found = {}
    for make, opened in MAKES.items():
        async with contextlib.AsyncExitStack() as stack:
            server, address = await stack.enter_async_context(native_server(echo))
            channel = await stack.enter_async_context(opened(address))
            states = [channel.get_state()]
            assert channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.IDLE
            await asyncio.wait_for(channel.channel_ready(), 20)
            states.append(channel.get_state())
            changed = asyncio.create_task(channel.wait_for_state_change(grpc.ChannelConnectivity.READY))
            await server.stop(0)
            await asyncio.wait_for(changed, 20)
            states.append(channel.get_state())
            await channel.close()
            states.append(channel.get_state())
        found[make] = states
    assert found["native"] == found["grpcio"]


async def test_both_cancel_calls_when_closed(echo: AsyncEcho) -> None:
    """close() without grace ends what is under way as cancelled."""
    found = {}
    for make, opened in MAKES.items():
        echo.started.clear()
        async with our_server(echo) as address:
            channel = opened(address)
            call = EchoStub(channel).unary("wait", timeout=20)
            await asyncio.wait_for(echo.started.wait(), 10)
            await channel.close()
            found[make] = [await seen(call), call.cancelled(), await call.code()]
    assert found["native"] == found["grpcio"]
