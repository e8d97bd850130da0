"""Peers that send without end cost a bounded amount, and others are served; the counters name what happened."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from serve_echo import AsyncEcho, EchoStub
from serve_hostile import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    ENHANCE_YOUR_CALM,
    GOAWAY,
    HEADERS,
    PING,
    PRIORITY,
    RST_STREAM,
    WINDOW_UPDATE,
    Peer,
    block,
    call,
    frame,
    hostile,
    message,
    request,
    resident,
    settings,
)
from serve_rig import native_channel, native_server

from meshwright.dataplane.grpc import Limits, NativeServer

UINT = struct.Struct(">I").pack
GROWTH = (
    96 << 20
)  # bytes that a flood may cost this process, its sender's buffers and the allocator's reserves included


@contextlib.asynccontextmanager
async def besieged(echo: AsyncEcho, **limits: Any) -> AsyncIterator[tuple[NativeServer, str]]:
    """A server with a well-behaved client that is answered all the time, and whose memory stays bounded."""
    async with native_server(echo, limits=Limits(**limits)) as (server, address), native_channel(address) as channel:
        stub = EchoStub(channel)
        answered = 0
        is_over = asyncio.Event()

        async def behave() -> None:
            nonlocal answered
            while not is_over.is_set():
                assert await stub.unary("well", timeout=10) == "well"
                answered += 1

        await stub.unary("warm", timeout=10)
        before = resident()
        behaving = asyncio.create_task(behave())
        try:
            yield server, address
        finally:
            is_over.set()
            await behaving
        assert answered > 0
        grown = resident() - before
        assert grown < GROWTH, f"{grown >> 20} MiB more"
        async with asyncio.timeout(20):
            while server.stats()["calls_open"] or server.stats()["connections_open"] > 1:
                await asyncio.sleep(0.01)


async def sent_until_closed(peer: Peer, part: Callable[[int], bytes], count: int) -> bool:
    """Send parts one after the other, reading nothing, until they are out or the server has closed."""
    for number in range(count):
        if not await peer.send(part(number)):
            return True
    return False


def rapid_resets(number: int) -> bytes:
    """Begin a hundred calls and reset them at once."""
    first = 1 + 200 * number
    return b"".join(
        call(stream, "wait") + frame(RST_STREAM, 0, stream, UINT(8)) for stream in range(first, first + 200, 2)
    )


FLOODS: dict[str, Callable[[int], bytes]] = {
    "ping": lambda _: frame(PING, 0, 0, bytes(8)) * 100,
    "settings": lambda number: settings((4, 65535 + number % 2)) * 100,
    "priority": lambda number: frame(PRIORITY, 0, 1 + 2 * number, UINT(0) + b"\x00") * 100,
    "reset": rapid_resets,
    "unknown": lambda _: frame(0x77, 0, 0, bytes(100)) * 100,
}


@pytest.mark.parametrize("name", FLOODS)
async def test_frames_that_only_cost_end_the_connection(echo: AsyncEcho, name: str) -> None:
    """Whoever sends too many is told ENHANCE_YOUR_CALM, or just closed if it doesn't listen."""
    async with besieged(echo) as (server, address), hostile(address) as peer:
        await sent_until_closed(peer, FLOODS[name], 1000)
        async with asyncio.timeout(10):
            # Many resets at once the h2 crate finds itself.
            while server.stats()["connections_flooding"] + server.stats()["connections_broken"] == 0:
                await asyncio.sleep(0.01)


async def test_too_many_pings_are_told_as_grpc_tells_it(echo: AsyncEcho) -> None:
    """GOAWAY says too_many_pings, so that grpc's clients ping less often."""
    async with besieged(echo) as (server, address), hostile(address) as peer:
        for _ in range(5):
            await peer.send(frame(PING, 0, 0, bytes(8)))
        farewell = await peer.until(GOAWAY)
        assert farewell is not None
        assert int.from_bytes(farewell.payload[4:8], "big") == ENHANCE_YOUR_CALM
        assert farewell.payload[8:] == b"too_many_pings"
        await peer.closed()
        assert server.stats()["connections_flooding"] == 1


async def test_pings_beside_calls_are_welcome(echo: AsyncEcho) -> None:
    """Clients measure by PINGs while they are answered; that is no flood."""
    async with besieged(echo) as (server, address), hostile(address) as peer:
        for stream in range(1, 41, 2):
            await peer.send(call(stream, "x"), frame(PING, 0, 0, bytes(8)))
            assert (await peer.status(stream))["grpc-status"] == "0"
        assert server.stats()["connections_flooding"] == 0


async def test_a_grpcio_client_pings_less_often_when_told(echo: AsyncEcho) -> None:
    """One whose keep-alive is too eager is disconnected, comes back, and is served."""
    limits = Limits(ping_interval_seconds=30)
    options = [
        ("grpc.keepalive_time_ms", 100), ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0), ("grpc.http2.min_time_between_pings_ms", 100),
        ("grpc.http2.min_ping_interval_without_data_ms", 100),
    ]  # fmt: skip
    async with (
        native_server(echo, limits=limits) as (server, address),
        grpc.aio.insecure_channel(address, options) as channel,
    ):
        stub = EchoStub(channel)
        waiting = stub.unary("wait", timeout=30)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await waiting
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "too_many_pings" in (caught.value.details() or "") + caught.value.debug_error_string()
        assert server.stats()["connections_flooding"] == 1
        assert await stub.unary("well", timeout=10, wait_for_ready=True) == "well"


async def test_window_updates_without_end_cost_nothing_to_keep(echo: AsyncEcho) -> None:
    """They are read as fast as they come and end at 2^31 with an error."""
    async with besieged(echo) as (server, address), hostile(address) as peer:
        await sent_until_closed(peer, lambda _: frame(WINDOW_UPDATE, 0, 0, UINT(1 << 20)) * 100, 100)
        async with asyncio.timeout(10):
            while server.stats()["connections_broken"] == 0:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("payload", [b"", b"\x00\x01x\x01y" * 100], ids=["empty", "full"])
async def test_continuations_without_end(echo: AsyncEcho, payload: bytes) -> None:
    """A header block that goes on and on ends the connection."""
    async with besieged(echo) as (server, address), hostile(address) as peer:
        await peer.send(frame(HEADERS, 0, 1, block(request())))
        assert await sent_until_closed(peer, lambda _: frame(CONTINUATION, 0, 1, payload) * 10, 10_000)
        async with asyncio.timeout(10):
            while server.stats()["connections_broken"] == 0:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("copies", [10, 16_000])
async def test_a_header_bomb(echo: AsyncEcho, copies: int) -> None:
    """A few bytes that stand for many by the header table are refused: this call, or the connection."""
    async with besieged(echo) as (_, address), hostile(address) as peer:
        bomb = b"\x40\x01x\x7f\xa1\x1e" + b"y" * 4000  # index 62 from here on
        await peer.send(frame(HEADERS, END_HEADERS, 1, block(request()) + bomb + b"\xbe" * copies))
        answer = await peer.status()
        assert "eof" in answer or answer.get(":status") == "431" or "reset" in answer, answer


async def test_metadata_over_the_limit(echo: AsyncEcho) -> None:
    """HTTP/2's own answer; the next call is served. One that is far too long ends the connection."""
    async with besieged(echo) as (_, address), hostile(address) as peer:
        long = [("x-long", "y" * 12_000)] * 2
        await peer.send(frame(HEADERS, 0, 1, block(request())))
        await peer.send(
            frame(CONTINUATION, 0, 1, block(long[:1])), frame(CONTINUATION, END_HEADERS, 1, block(long[1:]))
        )
        assert (await peer.status())[":status"] == "431"
        await peer.send(call(3, "well"))
        assert (await peer.status(3))["grpc-status"] == "0"


async def test_empty_data_without_end(echo: AsyncEcho) -> None:
    """Frames without a byte aren't kept, and end the connection when there are too many."""
    async with besieged(echo) as (_, address), hostile(address) as peer:
        await peer.send(frame(HEADERS, END_HEADERS, 1, block(request("Upload"))))
        assert await sent_until_closed(peer, lambda _: frame(DATA, 0, 1) * 100, 5000)


async def test_tiny_messages_that_nobody_reads(echo: AsyncEcho) -> None:
    """A handler that doesn't read holds its peer back by flow control; small frames don't add up to much memory."""
    async with besieged(echo) as (_, address), hostile(address) as peer:
        await peer.send(frame(HEADERS, END_HEADERS, 1, block(request("Unread"))))
        tiny = frame(DATA, 0, 1, message("")) * 1000
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):  # until the windows of HTTP/2 and of the sockets are full
                await sent_until_closed(peer, lambda _: tiny, 10_000)


@pytest.mark.parametrize("window", [0, 1, 1 << 30])
async def test_answers_that_nobody_reads(echo: AsyncEcho, window: int) -> None:
    """Endless answers wait in Python; large ones count as held, and then this peer's calls are refused."""
    limits = Limits(memory_per_peer=8 << 20)
    async with native_server(echo, limits=limits) as (server, address):
        before = resident()
        async with hostile(address, begun=False) as peer:
            await peer.begin((4, window))
            assert await peer.until(WINDOW_UPDATE)  # the requests need the connection's whole window
            await peer.send(*(call(stream, "forever", "Download") for stream in range(1, 101, 2)))
            large = message("x" * 60_000)
            pieces = [large[start : start + 16_000] for start in range(0, len(large), 16_000)]
            streams = itertools.count(101, 2)

            async def insist() -> None:
                while server.stats()["calls_shed_memory"] == 0:
                    stream = next(streams)
                    assert await peer.send(frame(HEADERS, END_HEADERS, stream, block(request()))), server.stats()
                    for number, piece in enumerate(pieces, 1):
                        assert await peer.send(frame(DATA, int(number == len(pieces)), stream, piece)), server.stats()
                    await asyncio.sleep(0)

            if window > 1:
                # What fills the sockets' buffers first, nobody needs to refuse: the server doesn't read on either.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(insist(), 5)
            else:
                await asyncio.wait_for(insist(), 20)
                assert server.stats()["bytes_held"] >= 2 << 20
            grown = resident() - before
            assert grown < GROWTH, f"{grown >> 20} MiB more"
        async with asyncio.timeout(10):
            while server.stats()["calls_open"] or server.stats()["bytes_held"]:
                await asyncio.sleep(0.01)
        async with native_channel(address) as channel:
            assert await EchoStub(channel).unary("well", timeout=10) == "well"


async def test_a_peer_that_stops_sending(echo: AsyncEcho) -> None:
    """A connection that is closed halfway ends its calls."""
    async with besieged(echo) as (_, address), hostile(address) as peer:
        await peer.send(call(1, "wait"))
        await asyncio.wait_for(echo.started.wait(), 10)
        peer.half_close()
        await peer.closed()
        await asyncio.wait_for(echo.cancelled.wait(), 10)


async def test_a_peer_that_vanished(echo: AsyncEcho) -> None:
    """One that doesn't answer PINGs any more is given up, and its calls with it."""
    limits = Limits(keep_alive_seconds=0.2, keep_alive_timeout_seconds=0.2)
    async with native_server(echo, limits=limits) as (_, address), hostile(address) as peer:
        await peer.send(call(1, "wait"))
        await peer.closed()
        assert [found for found in peer.frames if found.kind == PING]
        await asyncio.wait_for(echo.cancelled.wait(), 10)


async def test_settings_that_are_never_acknowledged(echo: AsyncEcho) -> None:
    """The limits that SETTINGS announce hold before they are acknowledged."""
    async with besieged(echo, concurrent_streams=10) as (_, address), hostile(address) as peer:
        # read() acknowledges; these are sent before anything is read
        await peer.send(*(call(stream, "wait") for stream in range(1, 201, 2)))
        how, _ = await peer.verdict(stream=199)
        assert how in ("reset", "goaway")
