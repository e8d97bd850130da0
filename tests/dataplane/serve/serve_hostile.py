"""An HTTP/2 client that says whatever a test wants, in frames written by hand, and reads what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import hpack
from serve_echo import SERVICE

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 1
END_HEADERS = 4
PADDED = 8

PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR = range(1, 7)
COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 9, 11

Headers = Sequence[tuple[str, str]]


class Frame(NamedTuple):
    """A frame that the server sent."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """Write a frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def block(headers: Iterable[tuple[str, str]]) -> bytes:
    """Write header fields as literals: no index, no Huffman code."""
    parts = []
    for name, value in headers:
        parts.append(b"\x00")
        for text in (name.encode(), value.encode()):
            parts.append(_length(len(text)) + text)
    return b"".join(parts)


def _length(number: int) -> bytes:
    if number < 127:
        return bytes([number])
    number, encoded = number - 127, b"\x7f"
    while number >= 128:
        number, encoded = number >> 7, encoded + bytes([number & 127 | 128])
    return encoded + bytes([number])


def request(method: str = "Unary", *more: tuple[str, str]) -> list[tuple[str, str]]:
    """Return the headers of a call of the echo service."""
    return [
        (":method", "POST"), (":scheme", "http"), (":path", f"/{SERVICE}/{method}"), (":authority", "hostile"),
        ("content-type", "application/grpc"), ("te", "trailers"), *more,
    ]  # fmt: skip


def message(text: str, *, length: int | None = None, flag: int = 0) -> bytes:
    """Write a gRPC message, with a length that may be a lie."""
    return struct.pack(">BI", flag, len(text) if length is None else length) + text.encode()


def call(stream: int, text: str, method: str = "Unary") -> bytes:
    """Write a whole well-formed call."""
    return frame(HEADERS, END_HEADERS, stream, block(request(method))) + frame(DATA, END_STREAM, stream, message(text))


def settings(*pairs: tuple[int, int]) -> bytes:
    """Write a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", name, value) for name, value in pairs))


class Peer:
    """One connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._decoder = hpack.Decoder()
        self._is_half_closed = False
        self.frames: list[Frame] = []

    async def send(self, *parts: bytes) -> bool:
        """Send bytes; False when the server has closed the connection."""
        try:
            self._writer.write(b"".join(parts))
            await self._writer.drain()
        except ConnectionError:
            return False
        return True

    async def begin(self, *pairs: tuple[int, int]) -> None:
        """Send the preface and SETTINGS."""
        await self.send(PREFACE, settings(*pairs))

    async def read(self) -> Frame | None:
        """Read a frame; None at the end of the connection."""
        try:
            head = await self._reader.readexactly(9)
            payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            return None
        found = Frame(head[3], head[4], int.from_bytes(head[5:], "big"), payload)
        self.frames.append(found)
        if (found.kind, found.flags) == (SETTINGS, 0) and not self._is_half_closed:
            await self.send(frame(SETTINGS, ACK))
        return found

    async def until(self, *kinds: int, stream: int = 0) -> Frame | None:
        """Read to the next frame of one of these kinds on `stream`; None when the connection ended."""
        async with asyncio.timeout(20):
            while (found := await self.read()) is not None:
                if found.kind in kinds and found.stream == stream:
                    return found
        return None

    async def verdict(self, stream: int = 1) -> tuple[str, int]:
        """Return how the server ended the stream or the connection: ("goaway" | "reset" | "answer" | "eof", code)."""
        async with asyncio.timeout(20):
            while (found := await self.read()) is not None:
                if found.kind == GOAWAY:
                    return "goaway", int.from_bytes(found.payload[4:8], "big")
                if found.kind == RST_STREAM and found.stream == stream:
                    return "reset", int.from_bytes(found.payload, "big")
                if found.kind in (DATA, HEADERS) and found.stream == stream and found.flags & END_STREAM:
                    return "answer", 0
        return "eof", 0

    async def status(self, stream: int = 1) -> dict[str, str]:
        """Read to the end of a call; return its headers and trailers."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(20):
            while (found := await self.read()) is not None:
                if found.kind == HEADERS:
                    fields |= {str(name): str(value) for name, value in self._decoder.decode(found.payload)}
                if found.stream == stream and found.flags & END_STREAM and found.kind in (DATA, HEADERS):
                    return fields
                if found.kind == RST_STREAM and found.stream == stream:
                    return fields | {"reset": str(int.from_bytes(found.payload, "big"))}
        return fields | {"eof": "1"}

    async def closed(self) -> None:
        """Read until the server has closed the connection."""
        async with asyncio.timeout(20):
            while await self.read() is not None:
                pass

    def half_close(self) -> None:
        """Say that no more bytes come, and nothing else."""
        self._is_half_closed = True
        self._writer.write_eof()


@contextlib.asynccontextmanager
async def hostile(address: str, identity: Any = None, *, begun: bool = True) -> AsyncIterator[Peer]:
    """Connect; with `begun` after the preface."""
    context = client_context(identity) if identity else None
    reader, writer = await asyncio.open_connection(*split(address), ssl=context, limit=1 << 20)
    peer = Peer(reader, writer)
    if begun:
        await peer.begin()
    try:
        yield peer
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


def split(address: str) -> tuple[str, int]:
    """Return host and port."""
    host, _, port = address.rpartition(":")
    return host, int(port)


def client_context(identity: Any) -> ssl.SSLContext:
    """Mutual TLS with this identity; whom it talks to doesn't matter here."""
    current = identity.current()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with tempfile.TemporaryDirectory() as folder:
        chain, key = Path(folder) / "chain.pem", Path(folder) / "key.pem"
        chain.write_bytes(current.cert_chain_pem)
        key.touch(mode=0o600)
        key.write_bytes(current.key_pem)
        context.load_cert_chain(chain, key)
    return context


def resident() -> int:
    """Return the bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
