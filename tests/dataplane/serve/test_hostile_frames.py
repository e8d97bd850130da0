"""Malformed HTTP/2 and gRPC framing end that call or that connection, with the code that the standard names."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
from serve_echo import AsyncEcho, EchoStub
from serve_hostile import (
    ACK,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    block,
    call,
    client_context,
    frame,
    hostile,
    message,
    request,
    settings,
    split,
)  # fmt: skip
from serve_rig import native_channel, native_server

from meshwright.dataplane.grpc import Limits, NativeServer

LIMITS = Limits(handshake_seconds=1)
OPEN = frame(HEADERS, END_HEADERS, 1, block(request("Chat")))  # a call that goes on
UINT = struct.Struct(">I").pack


@pytest.fixture
async def server(echo: AsyncEcho) -> AsyncIterator[tuple[NativeServer, str]]:
    """A server whose other clients must be served in the end."""
    async with native_server(echo, limits=LIMITS) as (server, address), native_channel(address) as channel:
        stub = EchoStub(channel)
        assert await stub.unary("before", timeout=10) == "before"
        yield server, address
        assert await stub.unary("after", timeout=10) == "after"


ENDS_CONNECTION: dict[str, tuple[bytes, int]] = {
    "data on stream 0": (frame(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
    "data on an idle stream": (frame(DATA, 0, 1, b"x"), PROTOCOL_ERROR),
    "data padded beyond its end": (OPEN + frame(DATA, PADDED, 1, b"\x05abc"), PROTOCOL_ERROR),
    "headers on stream 0": (frame(HEADERS, END_HEADERS, 0, block(request())), PROTOCOL_ERROR),
    "headers on an even stream": (frame(HEADERS, END_HEADERS, 2, block(request())), PROTOCOL_ERROR),
    "headers on an older stream": (call(5, "x") + call(3, "x"), PROTOCOL_ERROR),
    "headers padded beyond their end": (frame(HEADERS, END_HEADERS | PADDED, 1, b"\xffabc"), PROTOCOL_ERROR),
    "a frame within a header block": (
        frame(HEADERS, 0, 1, block(request())) + frame(PING, 0, 0, bytes(8)),
        PROTOCOL_ERROR,
    ),
    "a continuation of another stream": (
        frame(HEADERS, 0, 1, block(request())) + frame(CONTINUATION, END_HEADERS, 3, b""),
        PROTOCOL_ERROR,
    ),
    "a continuation of nothing": (frame(CONTINUATION, END_HEADERS, 1, block(request())), PROTOCOL_ERROR),
    "settings on a stream": (frame(SETTINGS, 0, 1), PROTOCOL_ERROR),
    "settings cut short": (frame(SETTINGS, 0, 0, bytes(5)), FRAME_SIZE_ERROR),
    "settings acknowledged with a payload": (frame(SETTINGS, ACK, 0, bytes(6)), FRAME_SIZE_ERROR),
    "settings acknowledged twice": (frame(SETTINGS, ACK) * 2, PROTOCOL_ERROR),
    "settings with too large a window": (settings((4, 1 << 31)), FLOW_CONTROL_ERROR),
    "settings with too small frames": (settings((5, 100)), PROTOCOL_ERROR),
    "settings with a push that is neither on nor off": (settings((2, 7)), PROTOCOL_ERROR),
    "a ping of seven bytes": (frame(PING, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    "a ping on a stream": (frame(PING, 0, 1, bytes(8)), PROTOCOL_ERROR),
    "a window update of three bytes": (frame(WINDOW_UPDATE, 0, 0, bytes(3)), FRAME_SIZE_ERROR),
    "a window update of nothing": (frame(WINDOW_UPDATE, 0, 0, UINT(0)), PROTOCOL_ERROR),
    "a window update of an idle stream": (frame(WINDOW_UPDATE, 0, 1, UINT(1)), PROTOCOL_ERROR),
    "a window beyond 2^31": (frame(WINDOW_UPDATE, 0, 0, UINT((1 << 31) - 1)), FLOW_CONTROL_ERROR),
    "a reset of an idle stream": (frame(RST_STREAM, 0, 1, UINT(8)), PROTOCOL_ERROR),
    "a reset of stream 0": (frame(RST_STREAM, 0, 0, UINT(8)), PROTOCOL_ERROR),
    "a reset of three bytes": (OPEN + frame(RST_STREAM, 0, 1, bytes(3)), FRAME_SIZE_ERROR),
    "a priority on stream 0": (frame(PRIORITY, 0, 0, bytes(5)), PROTOCOL_ERROR),
    "a push from a client": (frame(PUSH_PROMISE, END_HEADERS, 1, UINT(2)), PROTOCOL_ERROR),
    "a farewell on a stream": (frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL_ERROR),
    "a farewell cut short": (frame(GOAWAY, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    "a frame too long": (OPEN + frame(DATA, 0, 1, bytes(16385)), FRAME_SIZE_ERROR),
    "a header index out of range": (frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\x03"), COMPRESSION_ERROR),
    "a header index of zero": (frame(HEADERS, END_HEADERS, 1, b"\x80"), COMPRESSION_ERROR),
    "a header table too large": (frame(HEADERS, END_HEADERS, 1, b"\x3f\xff\xff\x7f"), COMPRESSION_ERROR),
    "a header cut short": (frame(HEADERS, END_HEADERS, 1, b"\x00\x7fabc"), COMPRESSION_ERROR),
    "a header integer without end": (frame(HEADERS, END_HEADERS, 1, b"\x00\x7f" + b"\xff" * 20), COMPRESSION_ERROR),
    "a header in a bad Huffman code": (
        frame(HEADERS, END_HEADERS, 1, b"\x00\x84\xff\xff\xff\xff\x00"),
        COMPRESSION_ERROR,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS_CONNECTION)
async def test_ends_the_connection(server: tuple[NativeServer, str], name: str) -> None:
    """The server says GOAWAY with the standard's code, or PROTOCOL_ERROR, which it may say of anything."""
    said, code = ENDS_CONNECTION[name]
    async with hostile(server[1]) as peer:
        await peer.send(said)
        while (verdict := await peer.verdict(stream=-1))[0] == "answer":
            pass
        # What it hadn't read of a long frame makes the kernel reset the connection, and the farewell may be lost.
        is_lost = verdict == ("eof", 0) and len(said) > 16384
        assert is_lost or verdict in (("goaway", code), ("goaway", PROTOCOL_ERROR))
        await peer.closed()


ENDS_STREAM: dict[str, bytes] = {
    "data after the end": call(1, "wait") + frame(DATA, 0, 1, b"x"),
    "headers after the end": call(1, "wait") + frame(HEADERS, END_HEADERS | END_STREAM, 1, block([("x", "y")])),
    "trailers that don't end": OPEN + frame(HEADERS, END_HEADERS, 1, block([("x", "y")])),
    "a stream window update of nothing": OPEN + frame(WINDOW_UPDATE, 0, 1, UINT(0)),
    "a stream window beyond 2^31": OPEN + frame(WINDOW_UPDATE, 0, 1, UINT((1 << 31) - 1)),
    "a stream that depends on itself": frame(HEADERS, END_HEADERS | 0x20, 1, UINT(1) + b"\x00" + block(request())),
    "no path": frame(HEADERS, END_HEADERS, 1, block(field for field in request() if field[0] != ":path")),
    "no method": frame(HEADERS, END_HEADERS, 1, block(field for field in request() if field[0] != ":method")),
    "an empty path": frame(HEADERS, END_HEADERS, 1, block((k, "" if k == ":path" else v) for k, v in request())),
    "two methods": frame(HEADERS, END_HEADERS, 1, block([(":method", "POST"), *request()])),
    "an unknown pseudo-header": frame(HEADERS, END_HEADERS, 1, block([(":x", "y"), *request()])),
    "a status in a request": frame(HEADERS, END_HEADERS, 1, block([(":status", "200"), *request()])),
    "a pseudo-header after others": frame(HEADERS, END_HEADERS, 1, block([*request()[1:], (":method", "POST")])),
    "an upper-case name": frame(HEADERS, END_HEADERS, 1, block(request("Unary", ("X-Upper", "y")))),
    "a line break in a value": frame(HEADERS, END_HEADERS, 1, block(request("Unary", ("x", "a\r\nb")))),
    "a header of a connection": frame(HEADERS, END_HEADERS, 1, block(request("Unary", ("connection", "close")))),
    "another te": frame(HEADERS, END_HEADERS, 1, block(request("Unary", ("te", "gzip")))),
    "more data than announced": (
        frame(HEADERS, END_HEADERS, 1, block(request("Chat", ("content-length", "1"))))
        + frame(DATA, 0, 1, message("x"))
    ),
}


@pytest.mark.parametrize("name", ENDS_STREAM)
async def test_ends_the_call(server: tuple[NativeServer, str], name: str) -> None:
    """The stream is reset (or the connection ended, as the standard also allows); nothing stays open."""
    async with hostile(server[1]) as peer:
        await peer.send(ENDS_STREAM[name])
        how, code = await peer.verdict()
        assert how in ("reset", "goaway"), how
        assert code in (PROTOCOL_ERROR, STREAM_CLOSED, FLOW_CONTROL_ERROR)
        if how == "reset":
            await peer.send(call(3, "well"))
            assert (await peer.status(3))["grpc-status"] == "0"


async def test_what_is_no_grpc_is_told_so(server: tuple[NativeServer, str]) -> None:
    """Other methods and content types get HTTP's own answers."""
    for stream, (field, value, status) in enumerate(
        [(":method", "GET", "405"), ("content-type", "text/plain", "415"), (":method", "CONNECT", "")]
    ):
        async with hostile(server[1]) as peer:
            fields = [(k, value if k == field else v) for k, v in request()]
            await peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * stream, block(fields)))
            answer = await peer.status(1 + 2 * stream)
            assert answer.get(":status", "") == status, answer


NO_HTTP2 = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    bytes(100),
    b"\x16\x03\x01\x02\x00\x01" + b"\xff" * 600,
    PREFACE + b"\xff" * 99,
    PREFACE[:-1] + b"X",
    b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
]
NO_TLS = [
    b"GET / HTTP/1.1\r\n\r\n",
    PREFACE + settings(),
    b"\x16\x03\x01\xff\xff" + bytes(70000),
    b"\x15\x03\x03\x00\x02\x02\x28",
]


@pytest.mark.parametrize(
    "garbage",
    NO_HTTP2,
    ids=["http/1.1", "zeros", "tls", "bad first frame", "almost a preface", "a wrong preface"],
)  # fmt: skip
async def test_garbage(server: tuple[NativeServer, str], garbage: bytes) -> None:
    """Whoever doesn't speak HTTP/2 is closed."""
    async with hostile(server[1], begun=False) as peer:
        await peer.send(garbage)
        await peer.closed()


@pytest.mark.parametrize("garbage", NO_TLS, ids=["http/1.1", "http/2", "a long record", "an alert"])
async def test_garbage_instead_of_tls(
    echo: AsyncEcho, server_identity: Any, client_identity: Any, garbage: bytes
) -> None:
    """The same where TLS is expected; counted as a failed handshake."""
    async with (
        native_server(echo, identity=server_identity, limits=LIMITS) as (server, address),
        native_channel(address, client_identity) as channel,
    ):
        async with hostile(address, begun=False) as peer:
            await peer.send(garbage)
            await peer.closed()
        assert server.stats()["handshakes_failed"] == 1
        assert await EchoStub(channel).unary("well", timeout=10) == "well"


@pytest.mark.parametrize(
    ("said", "status", "text"),
    [
        (message("hello", length=6), "13", "middle of a message"),
        (message("", length=2**32 - 1), "8", "4294967295 bytes; the limit is"),
        (message("a") + message("b"), "13", "more than one message"),
        (b"", "13", "no message"),
        (b"\x00\x00", "13", "middle of a message"),
        (message("x", flag=1), "13", ""),
        (message("x", flag=7), "13", ""),
    ],
    ids=["cut", "4 GiB", "two", "none", "half a prefix", "compressed without an encoding", "an unknown flag"],
)
async def test_message_framing(server: tuple[NativeServer, str], said: bytes, status: str, text: str) -> None:
    """A unary call whose body isn't exactly one message ends with a status that says why."""
    async with hostile(server[1]) as peer:
        await peer.send(frame(HEADERS, END_HEADERS, 1, block(request())), frame(DATA, END_STREAM, 1, said))
        answer = await peer.status()
        assert answer["grpc-status"] in (status, "12")
        assert text in answer["grpc-message"].replace("%20", " ")
        await peer.send(call(3, "well"))
        assert (await peer.status(3))["grpc-status"] == "0"


async def test_one_byte_a_frame(server: tuple[NativeServer, str]) -> None:
    """A message may come in as many frames as it has bytes."""
    async with hostile(server[1]) as peer:
        await peer.send(frame(HEADERS, END_HEADERS, 1, block(request())))
        for byte in message("x" * 50):
            await peer.send(frame(DATA, 0, 1, bytes([byte])))
        await peer.send(frame(DATA, END_STREAM, 1))
        assert (await peer.status())["grpc-status"] == "0"


@pytest.mark.parametrize("is_tls", [False, True])
async def test_one_byte_a_packet(echo: AsyncEcho, server_identity: Any, client_identity: Any, is_tls: bool) -> None:
    """Preface, headers and message may come byte by byte, under TLS a record each."""
    identities = (server_identity, client_identity) if is_tls else (None, None)
    async with (
        native_server(echo, identity=identities[0]) as (_, address),
        hostile(address, identities[1], begun=False) as peer,
    ):
        for byte in PREFACE + settings() + call(1, "slow"):
            await peer.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await peer.status())["grpc-status"] == "0"


async def test_a_handshake_byte_by_byte(echo: AsyncEcho, server_identity: Any, client_identity: Any) -> None:
    """TLS's handshake may come byte by byte; when it takes too long it is closed."""
    async with native_server(echo, identity=server_identity, limits=LIMITS) as (server, address):
        for is_whole in (True, False):
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = client_context(client_identity).wrap_bio(incoming, outgoing)
            reader, writer = await asyncio.open_connection(*split(address))
            while True:
                try:
                    tls.do_handshake()
                    is_done = True
                except ssl.SSLWantReadError:
                    is_done = False
                for byte in outgoing.read() if is_whole else outgoing.read()[:100]:
                    writer.write(bytes([byte]))
                    await asyncio.sleep(0)
                if is_done:
                    tls.write(PREFACE + settings() + call(1, "slow"))
                    writer.write(outgoing.read())
                    break
                if not is_whole:
                    break
                incoming.write(await asyncio.wait_for(reader.read(65536), 10))
            async with asyncio.timeout(10):
                while is_whole and b"\x00" not in (await reader.read(1)):  # something comes back
                    pass
                while not is_whole and await reader.read(1000):
                    pass
            writer.transport.abort()
        assert server.stats()["handshakes_failed"] == 1
