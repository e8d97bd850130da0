"""As much HTTP/1.1 as probes need: one small request and one small answer a connection, both bounded in size and time.

One decision to know: it is written on asyncio's streams, because this process stays in every pod: a web framework would
cost each of them 40 MiB.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

_HEAD_BYTES, _BODY_BYTES = 16 * 1024, 4 * 1024 * 1024
_HEAD_SECONDS, _ANSWER_SECONDS = 10.0, 60.0
_CONNECTIONS = 64


class MalformedError(Exception):
    """What came isn't HTTP/1.x, or too large."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request without a body."""

    path: str
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a body."""

    status: int
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Unix:
    """A Unix socket to connect to."""

    path: Path


@dataclass(frozen=True, slots=True)
class Tcp:
    """An address to connect to, from `source`; `tls` as kubelets do, without looking at the certificate."""

    host: str
    port: int
    source: str = ""
    tls: bool = field(default=False)


@contextlib.asynccontextmanager
async def serving(port: int, answer: Callable[[Request], Awaitable[Answer]]) -> AsyncIterator[int]:
    """Answer requests on `port` of all addresses for the length of the context; yields the one taken for port 0."""
    places = asyncio.Semaphore(_CONNECTIONS)

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not places.locked():  # otherwise closed at once: a kubelet asks again
                async with places:
                    await _one(reader, writer, answer)
        except (OSError, TimeoutError, MalformedError):
            pass  # the client's loss
        finally:
            writer.close()

    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    listener = socket.create_server(("", port), family=family, dualstack_ipv6=both)
    server = await asyncio.start_server(one, sock=listener, limit=_HEAD_BYTES)
    try:
        yield int(listener.getsockname()[1])
    finally:
        server.close()


async def _one(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Callable[[Request], Awaitable[Answer]]
) -> None:
    async with asyncio.timeout(_HEAD_SECONDS):
        first, headers = await _head(reader)
    words = first.split(" ")
    if len(words) != 3 or words[0] not in ("GET", "HEAD"):
        given = Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET\n")
    else:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                given = await answer(Request(words[1].partition("?")[0], headers))
        except (OSError, TimeoutError, MalformedError) as error:
            given = Answer(HTTPStatus.SERVICE_UNAVAILABLE, f"no answer: {error or type(error).__name__}\n".encode())
    head = f"HTTP/1.1 {given.status} {_phrase(given.status)}\r\nconnection: close\r\ncontent-length: {len(given.body)}"
    writer.write(f"{head}\r\n\r\n".encode() + (b"" if words[0] == "HEAD" else given.body))
    async with asyncio.timeout(_HEAD_SECONDS):
        await writer.drain()


async def ask(
    where: Unix | Tcp, target: str, *, method: str = "GET", headers: tuple[tuple[str, str], ...] = ()
) -> Answer:
    """Send one request and return the answer; raise OSError, TimeoutError or MalformedError."""
    async with asyncio.timeout(_ANSWER_SECONDS):
        reader, writer = await _connect(where)
        try:
            sent = {"host": "localhost"} | {name.lower(): value for name, value in headers} | {"connection": "close"}
            lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
            writer.write(f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1"))
            await writer.drain()
            first, received = await _head(reader)
            words = first.split(" ", 2)
            if len(words) < 2 or not words[1].isdecimal():
                raise MalformedError(f"the answer begins with {first[:60]!r}")
            chunked = any(pair[0].lower() == "transfer-encoding" for pair in received)
            body = b"".join([part async for part in (_chunks(reader) if chunked else _rest(reader))])
            return Answer(int(words[1]), body)
        finally:
            writer.close()


async def _connect(where: Unix | Tcp) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(where, Unix):
        return await asyncio.open_unix_connection(str(where.path), limit=_HEAD_BYTES)
    unverified = None
    if where.tls:
        unverified = ssl.create_default_context()
        unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    source = (where.source, 0) if where.source else None
    return await asyncio.open_connection(where.host, where.port, local_addr=source, ssl=unverified, limit=_HEAD_BYTES)


async def _head(reader: asyncio.StreamReader) -> tuple[str, tuple[tuple[str, str], ...]]:
    try:
        text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise MalformedError("no end of the head of a request or answer") from error
    first, *lines = text.removesuffix("\r\n\r\n").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return first, tuple((name.strip(), value.strip()) for name, _, value in pairs)


async def _rest(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Read to the end of the connection, as was asked for."""
    total = 0
    while total < _BODY_BYTES and (part := await reader.read(64 * 1024)):
        total += len(part)
        yield part


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Read a body in chunks (RFC 9112, section 7.1)."""
    total = 0
    try:
        while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            total += size
            if size < 0 or total > _BODY_BYTES:
                raise MalformedError(f"the answer has more than {_BODY_BYTES} bytes")
            yield await reader.readexactly(size)
            await reader.readexactly(2)
    except (ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise MalformedError("the answer's chunks are broken") from error


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Status"
