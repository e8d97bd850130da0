"""A service of all kinds of calls, added to servers as generated code adds one, and its stub."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc

SERVICE = "meshwright.test.Echo"


def _text(message: str | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.encode()  # grpcio's server encodes text by itself


class AsyncEcho:
    """Answers what it is told; records what it saw."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()
        self.started = asyncio.Event()

    async def unary(self, request: str, context: Any) -> str:
        if request == "fail":
            raise ValueError("boom")
        if request.startswith("abort "):
            context.set_trailing_metadata([("why", "asked")])
            await context.abort(grpc.StatusCode[request.split()[1]], "as you asked: 100 %, «so»")
        if request == "set":
            context.set_code(grpc.StatusCode.NOT_FOUND)
            context.set_details("nothing here")
        if request == "metadata":
            sent = [(key, value) for key, value in context.invocation_metadata() if key.startswith("x-")]
            await context.send_initial_metadata(sent)
            context.set_trailing_metadata([("trailer-bin", b"\x00\xff"), ("trailer", "end")])
        if request == "caller":
            return ",".join(name.decode() for name in context.auth_context().get("x509_subject_alternative_name", []))
        if request == "remaining":
            return str(context.time_remaining())
        if request == "wait":
            self.started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return request

    async def download(self, request: str, context: Any) -> AsyncIterator[str]:
        if request == "forever":
            self.started.set()
            try:
                while True:
                    yield request
                    await asyncio.sleep(0)
            finally:
                self.cancelled.set()
        for index in range(int(request)):
            yield str(index)

    async def upload(self, requests: AsyncIterator[str], context: Any) -> str:
        return "+".join([request async for request in requests])

    async def chat(self, requests: AsyncIterator[str], context: Any) -> AsyncIterator[str]:
        try:
            async for request in requests:
                yield request.upper()
        finally:
            self.cancelled.set()


class WritingEcho(AsyncEcho):
    """The same by context.read and context.write."""

    async def download(self, request: str, context: Any) -> None:  # type: ignore[override]
        for index in range(int(request)):
            await context.write(str(index))

    async def upload(self, requests: AsyncIterator[str], context: Any) -> str:
        parts = []
        while (request := await context.read()) is not grpc.aio.EOF:
            parts.append(request)
        return "+".join(parts)

    async def chat(self, requests: AsyncIterator[str], context: Any) -> None:  # type: ignore[override]
        while (request := await context.read()) is not grpc.aio.EOF:
            await context.write(request.upper())


class SyncEcho:
    """The same with handlers that may block."""

    def unary(self, request: str, context: Any) -> str:
        if request == "fail":
            raise ValueError("boom")
        if request.startswith("abort "):
            context.set_trailing_metadata([("why", "asked")])
            context.abort(grpc.StatusCode[request.split()[1]], "as you asked: 100 %, «so»")
        return request

    def download(self, request: str, context: Any) -> Iterator[str]:
        for index in range(int(request)):
            yield str(index)

    def upload(self, requests: Iterator[str], context: Any) -> str:
        return "+".join(requests)

    def chat(self, requests: Iterator[str], context: Any) -> Iterator[str]:
        for request in requests:
            yield request.upper()


def add_echo_to_server(servicer: Any, server: Any) -> None:
    """Do what grpcio-tools' add_EchoServicer_to_server does."""
    how = {"request_deserializer": bytes.decode, "response_serializer": _text}
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(servicer.unary, **how),
        "Download": grpc.unary_stream_rpc_method_handler(servicer.download, **how),
        "Upload": grpc.stream_unary_rpc_method_handler(servicer.upload, **how),
        "Chat": grpc.stream_stream_rpc_method_handler(servicer.chat, **how),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_registered_method_handlers(SERVICE, handlers)


class EchoStub:
    """What grpcio-tools generates for a client."""

    def __init__(self, channel: Any) -> None:
        how = {"request_serializer": _text, "response_deserializer": bytes.decode, "_registered_method": True}
        self.unary = channel.unary_unary(f"/{SERVICE}/Unary", **how)
        self.download = channel.unary_stream(f"/{SERVICE}/Download", **how)
        self.upload = channel.stream_unary(f"/{SERVICE}/Upload", **how)
        self.chat = channel.stream_stream(f"/{SERVICE}/Chat", **how)
        self.unknown = channel.unary_unary(f"/{SERVICE}/Unknown", **how)
