"""Limits answer in a way that the caller can read, and many calls at a time are no matter."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import threading
import time
from typing import Any

import grpc
import pytest
from grpc_health.v1 import _async as aio_health
from grpc_health.v1 import health_pb2, health_pb2_grpc
from serve_echo import AsyncEcho, EchoStub, SyncEcho
from serve_rig import native_channel, native_server

from meshwright.core.identity import StaticIdentity
from meshwright.dataplane.grpc import Limits, NativeServer


async def test_a_thousand_calls_at_once(connect: Any, echo: AsyncEcho) -> None:
    """Every one of 1,000 concurrent calls gets its own answer."""
    stub = await connect(echo)
    calls = (stub.unary(str(number), timeout=30) for number in range(1000))
    assert await asyncio.gather(*calls) == [str(number) for number in range(1000)]


async def test_a_hundred_streams_at_once(connect: Any, echo: AsyncEcho) -> None:
    """Streams don't wait for one another."""
    stub = await connect(echo)
    streams = [stub.chat(timeout=30) for _ in range(100)]
    for word in ("a", "b"):
        await asyncio.gather(*(stream.write(word) for stream in streams))
        assert set(await asyncio.gather(*(stream.read() for stream in streams))) == {word.upper()}
    await asyncio.gather(*(stream.done_writing() for stream in streams))


async def test_large_messages(connect: Any, echo: AsyncEcho) -> None:
    """Nearly four MiB pass, in both directions and in streams."""
    stub = await connect(echo)
    large = "x" * (4 * 1024 * 1024 - 100)
    assert await stub.unary(large, timeout=30) == large
    assert [answer async for answer in stub.chat(iter([large, large]), timeout=30)] == [large.upper()] * 2


@pytest.mark.parametrize("kind", ["unary", "upload"])
async def test_too_large_a_request(
    echo: AsyncEcho, server_identity: StaticIdentity, client_identity: StaticIdentity, kind: str
) -> None:
    """A request over the limit is RESOURCE_EXHAUSTED, naming both sizes; the connection lives on."""
    limits = Limits(message_size=1000)
    async with (
        native_server(echo, identity=server_identity, limits=limits) as (_, address),
        native_channel(address, client_identity) as channel,
    ):
        stub = EchoStub(channel)
        large = "x" * 1001
        call = stub.unary(large, timeout=10) if kind == "unary" else stub.upload(iter([large]), timeout=10)
        with pytest.raises(grpc.aio.AioRpcError, match="1001 bytes; the limit is 1000") as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await stub.unary("x" * 1000, timeout=10) == "x" * 1000


async def test_too_large_a_response(echo: AsyncEcho) -> None:
    """The same for what a channel receives."""
    async with native_server(echo) as (_, address), native_channel(address, limits=Limits(message_size=10)) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="the limit is 10") as caught:
            await EchoStub(channel).unary("x" * 11, timeout=10)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_too_many_calls_are_shed(echo: AsyncEcho) -> None:
    """Calls beyond what Python may work on end at once, and the others aren't disturbed."""
    async with native_server(echo, limits=Limits(pending_calls=2)) as (_, address), native_channel(address) as channel:
        stub = EchoStub(channel)
        waiting = [stub.unary("wait", timeout=30) for _ in range(2)]
        await asyncio.wait_for(echo.started.wait(), 10)
        async with asyncio.timeout(10):
            while True:  # the second may still be on its way
                try:
                    await stub.unary("more", timeout=10)
                    if waiting[1].done():  # it came after one of these, and was shed in its place
                        waiting[1] = stub.unary("wait", timeout=30)
                except grpc.aio.AioRpcError as error:
                    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                    break
        for call in waiting:
            call.cancel()
        async with asyncio.timeout(10):
            while True:
                try:
                    assert await stub.unary("again", timeout=10) == "again"
                    break
                except grpc.aio.AioRpcError:  # the cancellations are on their way
                    await asyncio.sleep(0)


async def test_too_much_metadata(echo: AsyncEcho) -> None:
    """Metadata beyond the limit is refused, not truncated."""
    async with native_server(echo) as (_, address), native_channel(address) as channel:
        stub = EchoStub(channel)
        with pytest.raises(grpc.aio.AioRpcError, match="431") as caught:
            await stub.unary("hello", timeout=10, metadata=(("x-long", "x" * 20_000),))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await stub.unary("hello", timeout=10, metadata=(("x-long", "x" * 10_000),)) == "hello"


async def test_too_many_connections(echo: AsyncEcho) -> None:
    """A connection too many is closed at once; there is room again when one ends."""
    async with native_server(echo, limits=Limits(connections=1)) as (server, address):
        async with native_channel(address) as first:
            assert await EchoStub(first).unary("one", timeout=10) == "one"
            async with native_channel(address) as second:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await EchoStub(second).unary("two", timeout=10)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert server.stats()["connections_refused"] == 1
        async with native_channel(address) as third:
            assert await EchoStub(third).unary("three", timeout=10, wait_for_ready=True) == "three"


async def test_too_many_connections_of_one_peer(
    echo: AsyncEcho, server_identity: StaticIdentity, client_identity: StaticIdentity
) -> None:
    """One peer's connections are counted by its identity, another's apart; one too many is closed at once."""
    limits = Limits(connections_per_peer=1)
    async with native_server(echo, identity=server_identity, limits=limits) as (server, address):
        async with native_channel(address, client_identity) as first:
            assert await EchoStub(first).unary("one", timeout=10) == "one"
            async with native_channel(address, client_identity) as second:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await EchoStub(second).unary("two", timeout=10)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            async with native_channel(address, server_identity) as other:
                assert await EchoStub(other).unary("other", timeout=10) == "other"
            assert server.stats()["connections_refused_peer"] >= 1
        async with native_channel(address, client_identity) as third:
            assert await EchoStub(third).unary("three", timeout=10, wait_for_ready=True) == "three"


async def test_too_many_calls_a_second(
    echo: AsyncEcho, server_identity: StaticIdentity, client_identity: StaticIdentity
) -> None:
    """Calls beyond a peer's rate are refused, on all its connections, and told when to come again; others aren't."""
    limits = Limits(calls_per_second=0.01, calls_at_once=3)
    async with (
        native_server(echo, identity=server_identity, limits=limits) as (server, address),
        native_channel(address, client_identity) as first,
        native_channel(address, client_identity) as second,
        native_channel(address, server_identity) as other,
    ):
        for channel in (first, second, first):
            assert await EchoStub(channel).unary("well", timeout=10) == "well"
        with pytest.raises(grpc.aio.AioRpcError, match="makes more calls than this server takes") as caught:
            await EchoStub(second).unary("more", timeout=10)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        pushback = dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"]
        assert 90_000 < int(pushback) <= 100_000
        assert await EchoStub(other).unary("well", timeout=10) == "well"
        assert server.stats()["calls_limited"] == 1


async def test_a_rate_survives_a_new_connection(echo: AsyncEcho) -> None:
    """Whoever comes back finds its rate as it left it."""
    async with native_server(echo, limits=Limits(calls_per_second=0.01, calls_at_once=1)) as (_, address):
        async with native_channel(address) as channel:
            assert await EchoStub(channel).unary("well", timeout=10) == "well"
        async with native_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await EchoStub(channel).unary("more", timeout=10)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("make", [native_channel, grpc.aio.insecure_channel], ids=["native", "grpcio"])
async def test_idle_connections_are_told_to_go(echo: AsyncEcho, make: Any) -> None:
    """A connection without calls ends without an error; one with a call stays. The next call makes a new one."""
    async with native_server(echo, limits=Limits(idle_seconds=0.2)) as (server, address), make(address) as channel:
        stub = EchoStub(channel)
        stream = stub.chat(timeout=30)
        await stream.write("a")
        assert await stream.read() == "A"
        await asyncio.sleep(0.5)  # a whole idle time with a call under way and nothing said
        assert server.stats()["connections_idle"] == 0
        await stream.write("b")
        assert await stream.read() == "B"
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
        async with asyncio.timeout(10):
            while server.stats()["connections_open"]:
                await asyncio.sleep(0.01)
        assert server.stats()["connections_idle"] == 1
        assert await stub.unary("again", timeout=10) == "again"


async def test_old_connections_are_told_to_go(echo: AsyncEcho) -> None:
    """Calls go on over new connections without an error; one that outlives the grace ends."""
    limits = Limits(age_seconds=0.2, age_grace_seconds=0.5)
    async with native_server(echo, limits=limits) as (server, address), native_channel(address) as channel:
        stub = EchoStub(channel)
        waiting = stub.unary("wait", timeout=30)
        async with asyncio.timeout(20):
            while server.stats()["connections_aged"] < 3:
                assert await stub.unary("well", timeout=10, wait_for_ready=True) == "well"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await waiting
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_too_much_held(echo: AsyncEcho) -> None:
    """Calls are refused while too many bytes wait; uploads under way come to their end one after the other."""
    limits = Limits(memory=1 << 20, memory_per_peer=1 << 20)
    async with native_server(echo, limits=limits) as (server, address), native_channel(address) as channel:
        stub = EchoStub(channel)
        large = "x" * (1 << 20)
        outcomes = await asyncio.gather(*(stub.unary(large, timeout=30) for _ in range(50)), return_exceptions=True)
        refused = [outcome for outcome in outcomes if outcome != large]
        for outcome in refused:
            assert isinstance(outcome, grpc.aio.AioRpcError)
            assert outcome.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "holds as many bytes" in (outcome.details() or "")
        assert 0 < len(refused) < 50
        assert server.stats()["calls_shed_memory"] == len(refused)
        async with asyncio.timeout(10):
            while server.stats()["bytes_held"]:
                await asyncio.sleep(0.01)
        assert await stub.unary(large, timeout=10) == large


async def test_calls_are_shed_while_others_wait_too_long(echo: AsyncEcho) -> None:
    """A busy loop makes calls wait; then new ones end at once, except health checks, and are taken again later."""
    health = aio_health.HealthServicer()
    await health.set("", health_pb2.HealthCheckResponse.SERVING)

    def add_health(server: NativeServer) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(health, server)

    checked: list[int] = []
    async with native_server(echo, add=add_health, limits=Limits(queue_seconds=0.05)) as (server, address):
        loop_is_busy = asyncio.Event()

        async def load() -> list[Any]:
            async with native_channel(address) as channel:
                stub = EchoStub(channel)
                results: list[Any] = []
                while not loop_is_busy.is_set():
                    calls = (stub.unary("x", timeout=10) for _ in range(20))
                    asked = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
                    results += await asyncio.gather(*calls, return_exceptions=True)
                    checked.append((await asked).status)
                return results

        thread = asyncio.create_task(asyncio.to_thread(asyncio.run, load()))
        async with asyncio.timeout(30):
            while server.stats()["calls_shed_waiting"] == 0:
                time.sleep(0.2)  # what a handler shouldn't do: nothing else runs on the loop
                await asyncio.sleep(0)
        loop_is_busy.set()
        refused = [result for result in await thread if result != "x"]
        assert refused
        assert set(checked) == {health_pb2.HealthCheckResponse.SERVING}
        for error in refused:
            assert isinstance(error, grpc.aio.AioRpcError)
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "wait longer than 50ms" in (error.details() or "")
        async with native_channel(address) as channel:
            assert await EchoStub(channel).unary("again", timeout=10) == "again"


async def test_blocked_handlers_dont_pile_up_what_was_cancelled() -> None:
    """Calls that wait for a thread leave nothing behind when they are cancelled."""
    release = threading.Event()
    begun: list[str] = []

    class Blocking(SyncEcho):
        def unary(self, request: str, context: Any) -> str:
            begun.append(request)
            release.wait(30)
            return request

    limits = Limits(threads=2)
    async with native_server(Blocking(), limits=limits) as (server, address), native_channel(address) as channel:
        stub = EchoStub(channel)
        try:
            for _ in range(3):
                calls = [stub.unary("x", timeout=30) for _ in range(100)]
                async with asyncio.timeout(10):
                    while len(begun) < 2:
                        await asyncio.sleep(0.01)
                for call in calls:
                    call.cancel()
                await asyncio.gather(*calls, return_exceptions=True)
            async with asyncio.timeout(10):
                while server.stats()["calls_open"]:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0)  # the loop hears of cancellations with its next look at the mailbox
            await asyncio.sleep(0)
        finally:
            release.set()
        assert await stub.unary("last", timeout=10) == "last"
        assert len(begun) == 3, "cancelled calls ran"


async def test_out_of_descriptors_is_told(echo: AsyncEcho, caplog: pytest.LogCaptureFixture) -> None:
    """A server that can't accept says so and counts it, and accepts when it can again."""
    async with native_server(echo) as (server, address):
        host, port = address.split(":")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.ExitStack() as clients:
            first = clients.enter_context(socket.socket())
            resource.setrlimit(resource.RLIMIT_NOFILE, (first.fileno() + 1, hard))  # descriptors are given lowest first
            try:
                first.connect((host, int(port)))
                async with asyncio.timeout(10):
                    while server.stats()["accepts_failed"] == 0:
                        await asyncio.sleep(0.01)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            async with asyncio.timeout(10):
                while not any("cannot accept" in record.message for record in caplog.records):
                    await asyncio.sleep(0.01)
        async with native_channel(address) as channel:
            assert await EchoStub(channel).unary("well", timeout=10) == "well"


@pytest.mark.parametrize("field", ["message_size", "calls_per_second", "idle_seconds"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_senseless_limits_are_refused(field: str, value: float) -> None:
    """The error names the field."""
    with pytest.raises(ValueError, match=field):
        Limits(**{field: value})


async def test_silent_peers_are_closed(echo: AsyncEcho, server_identity: StaticIdentity) -> None:
    """Neither an unfinished handshake nor a missing preface holds a place for longer than the limit."""
    for identity in (None, server_identity):
        async with native_server(echo, identity=identity, limits=Limits(handshake_seconds=0.2)) as (_, address):
            host, port = address.split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"P")
            async with asyncio.timeout(10):
                while await reader.read(1000):
                    pass
            writer.close()


async def test_garbage_ends_only_its_own_connection(echo: AsyncEcho) -> None:
    """Bytes that are no HTTP/2 close that connection and nothing else."""
    async with native_server(echo) as (_, address), native_channel(address) as channel:
        host, port = address.split(":")
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100):
            with socket.create_connection((host, int(port)), timeout=10) as client:
                client.sendall(garbage)
                await asyncio.to_thread(_read_to_end, client)
        assert await EchoStub(channel).unary("alive", timeout=10) == "alive"


def _read_to_end(client: socket.socket) -> None:
    try:
        while client.recv(1000):
            pass
    except ConnectionResetError:
        pass


async def test_slow_readers_dont_end_their_connection(connect: Any, echo: AsyncEcho) -> None:
    """Streams of small messages that nobody reads stand still; other calls of the connection go on."""
    stub = await connect(echo)
    streams = [stub.download("forever", timeout=30) for _ in range(10)]
    for stream in streams:
        assert await stream.read() == "forever"
    for number in range(200):  # the servers go on sending until flow control stops them
        assert await stub.unary(str(number), timeout=10) == str(number)
    for stream in streams:
        for _ in range(1000):
            assert await stream.read() == "forever"
        stream.cancel()
