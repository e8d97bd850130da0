"""Limits answer in a way that the caller can read, and many calls at a time are no matter."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import grpc
import pytest
from serve_echo import AsyncEcho, EchoStub
from serve_rig import native_channel, native_server

from meshwright.core.identity import StaticIdentity
from meshwright.dataplane.grpc import Limits


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
