"""The forward protocol, version 1: a chunk of events of one tag in one message, answered by the chunk's id.

Source: Fluentd's "Forward Protocol Specification v1": PackedForward mode, the EventTime extension, the options `chunk`
and `ack`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgpack

_EVENT_TIME = 0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_ANSWER = 4096
Event = tuple[datetime, dict[str, Any]]


def packed(event: Event) -> bytes:
    """One event: its moment to the nanosecond, and its record."""
    moment, record = event
    since = moment.astimezone(UTC) - _EPOCH
    seconds = since // timedelta(seconds=1)
    nanoseconds = (since % timedelta(seconds=1)) // timedelta(microseconds=1) * 1000
    at = (seconds & 0xFFFFFFFF).to_bytes(4, "big") + nanoseconds.to_bytes(4, "big")
    encoded: bytes = msgpack.packb([msgpack.ExtType(_EVENT_TIME, at), record])
    return encoded


def chunks(events: Iterable[Event], size: int) -> Iterator[tuple[int, bytes]]:
    """Events in chunks of at most `size` bytes, each with its count; a larger event is a chunk of its own."""
    count, chunk = 0, bytearray()
    for event in map(packed, events):
        if chunk and len(chunk) + len(event) > size:
            yield count, bytes(chunk)
            count = 0
            chunk.clear()
        chunk += event
        count += 1
    if chunk:
        yield count, bytes(chunk)


class Connection:
    """A connection to a server, opened when it is needed and again after it broke. For one task at a time."""

    def __init__(self, host: str, port: int, timeout_seconds: float) -> None:
        self._host, self._port, self._timeout = host, port, timeout_seconds
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, tag: str, chunks: Sequence[tuple[int, bytes]]) -> None:
        """Send the chunks and wait for each one's acknowledgement; OSError or TimeoutError when one doesn't come."""
        try:
            async with asyncio.timeout(self._timeout):
                for count, chunk in chunks:
                    await self._send(tag, count, chunk)
        except BaseException:
            await self.close()  # what is under way on it can't be told apart from what comes
            raise

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._streams is not None:
            writer = self._streams[1]
            self._streams = None
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _send(self, tag: str, count: int, chunk: bytes) -> None:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        name = base64.b64encode(os.urandom(16)).decode("ascii")
        writer.write(msgpack.packb([tag, chunk, {"size": count, "chunk": name}]))
        await writer.drain()
        unpacker = msgpack.Unpacker(max_buffer_size=_MAX_ANSWER)
        while True:
            answer = await reader.read(_MAX_ANSWER)
            if not answer:
                raise ConnectionResetError("the server closed the connection before it acknowledged the chunk")
            try:
                unpacker.feed(answer)
                found = next(unpacker, None)
            except (ValueError, msgpack.UnpackException) as error:
                raise ConnectionResetError(f"the server's answer can't be read: {error}") from error
            if found is not None:
                break
        if not isinstance(found, dict) or found.get("ack") != name:
            raise ConnectionResetError("the server acknowledged something else: is it a forward input?")
