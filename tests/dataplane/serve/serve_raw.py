"""A client that speaks HTTP/2 by hand, for what no client of gRPC shows or sends."""

from __future__ import annotations

import asyncio

import h2.config
import h2.connection
import h2.events
from serve_echo import SERVICE


def framed(message: bytes, flag: int = 0) -> bytes:
    return bytes([flag]) + len(message).to_bytes(4, "big") + message


def frames(body: bytes) -> list[tuple[int, bytes]]:
    found = []
    while body:
        end = 5 + int.from_bytes(body[1:5], "big")
        found.append((body[0], body[5:end]))
        body = body[end:]
    return found


class RawCalls:
    """HTTP/2 by hand, so that frames are seen as they are."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._http.initiate_connection()

    async def call(
        self, method: str, body: bytes, *headers: tuple[str, str]
    ) -> tuple[dict[str, str], bytes, dict[str, str]]:
        """Return headers, body and trailers of the answer."""
        stream = self._http.get_next_available_stream_id()
        own = [(":method", "POST"), (":scheme", "http"), (":path", f"/{SERVICE}/{method}"), (":authority", "test")]
        self._http.send_headers(stream, [*own, ("content-type", "application/grpc"), ("te", "trailers"), *headers])
        self._http.send_data(stream, body, end_stream=True)
        initial: dict[str, str] = {}
        trailers: dict[str, str] = {}
        answer = b""
        async with asyncio.timeout(10):
            while True:
                self._writer.write(self._http.data_to_send())
                await self._writer.drain()
                data = await self._reader.read(65536)
                assert data, "the server closed the connection"
                for event in self._http.receive_data(data):
                    if isinstance(event, h2.events.ResponseReceived):
                        initial = dict(event.headers)
                    elif isinstance(event, h2.events.DataReceived):
                        answer += event.data
                        self._http.acknowledge_received_data(event.flow_controlled_length, stream)
                    elif isinstance(event, h2.events.TrailersReceived):
                        trailers = dict(event.headers)
                    elif isinstance(event, h2.events.StreamEnded):
                        return initial, answer, trailers or initial
