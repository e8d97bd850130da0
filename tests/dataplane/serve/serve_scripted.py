"""A gRPC server that does what each test tells it, call by call, HTTP/2's refusals included."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
from serve_raw import framed, frames


@dataclass
class Request:
    """A call as it came."""

    headers: list[tuple[str, str]]
    body: bytes = b""
    number: int = 0

    @property
    def messages(self) -> list[bytes]:
        return [message for _, message in frames(self.body)]

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)


@dataclass
class End:
    """An answer: messages, if any, and a status. Without messages and `begun` it has trailers only."""

    code: int = 0
    messages: Sequence[bytes] = ()
    trailers: Sequence[tuple[str, str]] = ()
    begun: bool = False


@dataclass
class Reset:
    """The stream is reset, with this of HTTP/2's errors."""

    error: int


@dataclass
class GoAway:
    """The connection takes no more calls, and hasn't seen this one."""


@dataclass
class Drop:
    """The connection is cut."""


@dataclass
class Silence:
    """No answer at all."""


Deed = End | Reset | GoAway | Drop | Silence
OK = End(messages=[b"done"])


@dataclass
class Scripted:
    """What it was told and what it saw."""

    deeds: Callable[[int], Deed]
    at_headers: bool = False
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    pings: int = 0
    resets: int = 0
    address: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        http.initiate_connection()
        calls: dict[int, Request] = {}
        is_open = True
        while is_open:
            writer.write(http.data_to_send())
            await writer.drain()
            data = await reader.read(65536)
            is_open = bool(data)
            for event in http.receive_data(data):
                is_open = is_open and self.heard(http, calls, event)
        writer.write(http.data_to_send())

    def heard(self, http: h2.connection.H2Connection, calls: dict[int, Request], event: h2.events.Event) -> bool:
        """Take note of what came, and answer what is due; False: the connection is to be cut."""
        if isinstance(event, h2.events.RequestReceived):
            calls[event.stream_id] = request = Request(list(event.headers))
            self.requests.append(request)
            request.number = len(self.requests)
            if self.at_headers:
                return self.do(http, event.stream_id, request.number)
        elif isinstance(event, h2.events.DataReceived):
            calls[event.stream_id].body += event.data
            http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.PingReceived):
            self.pings += 1
        elif isinstance(event, h2.events.StreamReset):
            self.resets += 1
        elif isinstance(event, h2.events.StreamEnded) and not self.at_headers:
            return self.do(http, event.stream_id, calls[event.stream_id].number)
        return True

    def do(self, http: h2.connection.H2Connection, stream: int, number: int) -> bool:
        """Do what is due for call `number`; False: the connection is to be cut."""
        match self.deeds(number):
            case End() as end:
                initial = [(":status", "200"), ("content-type", "application/grpc")]
                trailers = [("grpc-status", str(end.code)), *end.trailers]
                if end.messages or end.begun:
                    http.send_headers(stream, initial)
                    for message in end.messages:
                        http.send_data(stream, framed(message))
                    http.send_headers(stream, trailers, end_stream=True)
                else:
                    http.send_headers(stream, [*initial, *trailers], end_stream=True)
            case Reset(error):
                http.reset_stream(stream, error)
            case GoAway():
                http.close_connection(last_stream_id=stream - 2 if stream > 1 else 0)
                return False
            case Drop():
                return False
            case Silence():
                pass
        return True


@contextlib.asynccontextmanager
async def scripted(*deeds: Deed, then: Deed = OK, at_headers: bool = False) -> AsyncIterator[Scripted]:
    """A server that does one deed a call, and `then` for all further ones; at once or after the call's requests."""
    server = Scripted(lambda number: deeds[number - 1] if number <= len(deeds) else then, at_headers)
    async with tcp_server(server.serve) as server.address:
        yield server


@contextlib.asynccontextmanager
async def tcp_server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """Serve connections until the end, and close what is left of them; yields the address."""
    running: set[asyncio.Task[None]] = set()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            with contextlib.suppress(ConnectionError):
                await serve(reader, writer)
        except asyncio.CancelledError:
            return  # the end of the test
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    listening = await asyncio.start_server(accepted, "127.0.0.1", 0)
    host, port = listening.sockets[0].getsockname()
    try:
        yield f"{host}:{port}"
    finally:
        listening.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running)
