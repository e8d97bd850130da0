"""The cheapest HTTP server that a measurement can stand on: it answers every request with the same few bytes.

One decision to know: it reads no more of HTTP/1.1 than where a request ends (a head, and a body of Content-Length), as
what is measured is the way to it. It serves a Unix socket, which only this user can open.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
from pathlib import Path

from meshwright.core import process

_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 3\r\n\r\nok\n"
_BAD = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_HEAD_LIMIT = 64 << 10  # bytes


class Origin(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._body = 0  # bytes of a request's body that are still to come
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete."""
        assert self._transport is not None
        self._buffer += data
        while True:
            taken = min(self._body, len(self._buffer))
            del self._buffer[:taken]
            self._body -= taken
            end = self._buffer.find(b"\r\n\r\n")
            if self._body or end < 0:
                if len(self._buffer) > _HEAD_LIMIT:
                    self._refuse()
                return
            head = bytes(self._buffer[:end]).lower()
            length = _content_length(head)
            if length is None:
                self._refuse()
                return
            del self._buffer[: end + 4]
            self._body = length
            self._transport.write(_ANSWER)
            if b"\r\nconnection: close" in head:
                self._transport.close()
                return

    def _refuse(self) -> None:
        assert self._transport is not None
        self._transport.write(_BAD)
        self._transport.close()
        self._buffer.clear()


def _content_length(head: bytes) -> int | None:
    """Return a request's length, 0 without one; None when it can't be known."""
    if b"\r\ntransfer-encoding:" in head:
        return None
    _, found, rest = head.partition(b"\r\ncontent-length:")
    value = rest.partition(b"\r\n")[0].strip()
    if not found:
        return 0
    return int(value) if value.isdigit() and len(value) < 16 else None


async def serve(socket: Path, stop: asyncio.Event) -> None:
    """Serve until `stop` is set, in place of a killed predecessor."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(socket)
    before = os.umask(0o177)
    try:
        server = await asyncio.get_running_loop().create_unix_server(Origin, str(socket))
    finally:
        os.umask(before)
    async with server:
        await stop.wait()


def main() -> int:
    """Run the server."""
    parser = argparse.ArgumentParser(prog="perf-origin", description=__doc__)
    parser.add_argument("--listen", type=Path, required=True, help="path of the Unix socket")
    arguments = parser.parse_args()
    return process.run("perf-origin", lambda stop: serve(arguments.listen, stop))


if __name__ == "__main__":
    sys.exit(main())
