"""A server of the bench `serve`, as a process of its own: `python -m bench.echo MAKE HANDLER [--tls FOLDER] …`.

Every make serves the same handlers: a StringValue comes back, once or as often as `--messages` says.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import contextlib
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.wrappers_pb2 import StringValue

from meshwright.core import logs
from meshwright.core.grpc import Server, limits
from meshwright.core.identity import FileIdentity
from meshwright.core.telemetry import spans
from meshwright.dataplane.grpc import NativeServer, nonblocking

SERVICE = "meshwright.bench.Echo"
THREADS = 16


class AsyncEcho:
    """Handlers that run on the event loop."""

    def __init__(self, messages: int) -> None:
        self._messages = messages

    async def unary(self, request: StringValue, context: Any) -> StringValue:
        """Answer with the request's text."""
        return StringValue(value=request.value)

    async def stream(self, request: StringValue, context: Any) -> AsyncIterator[StringValue]:
        """Answer many times."""
        for _ in range(self._messages):
            yield StringValue(value=request.value)


class SyncEcho:
    """The same in plain functions, which may block."""

    def __init__(self, messages: int) -> None:
        self._messages = messages

    def unary(self, request: StringValue, context: Any) -> StringValue:
        """Answer with the request's text."""
        return StringValue(value=request.value)

    def stream(self, request: StringValue, context: Any) -> Iterator[StringValue]:
        """Answer many times."""
        for _ in range(self._messages):
            yield StringValue(value=request.value)


class NonblockingEcho(SyncEcho):
    """The same, and they say that they never block."""

    @nonblocking
    def unary(self, request: StringValue, context: Any) -> StringValue:
        """Answer with the request's text."""
        return StringValue(value=request.value)


HANDLERS = {"async": AsyncEcho, "sync": SyncEcho, "nonblocking": NonblockingEcho}


def add_to_server(servicer: Any, server: Any) -> None:
    """Do what generated code does."""
    how: dict[str, Any] = {
        "request_deserializer": StringValue.FromString,
        "response_serializer": StringValue.SerializeToString,
    }
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(servicer.unary, **how),
        "Stream": grpc.unary_stream_rpc_method_handler(servicer.stream, **how),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_registered_method_handlers(SERVICE, handlers)


def main() -> None:
    """Serve until SIGTERM; print the address first."""
    parser = argparse.ArgumentParser(prog="python -m bench.echo")
    parser.add_argument("make", choices=["service", "native", "aio", "grpcio"])
    parser.add_argument("handler", choices=sorted(HANDLERS))
    parser.add_argument("--tls", type=Path, help="folder with cert.pem, key.pem and ca.pem; plain text without")
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--access-log", default="failed", help="which calls a `service` writes a line for")
    parser.add_argument(
        "--busy-poll", type=float, help="microseconds that ours polls before it sleeps; else its default"
    )
    arguments = parser.parse_args()
    servicer = HANDLERS[arguments.handler](arguments.messages)
    if arguments.make == "grpcio":
        serve_grpcio(servicer, arguments.tls)
    else:
        asyncio.run(serve(arguments, servicer))


async def serve(arguments: argparse.Namespace, servicer: Any) -> None:
    """Serve on an event loop: as our services do, by our server with all telemetry off, or by grpc.aio's."""
    make, tls, access_log = arguments.make, arguments.tls, arguments.access_log
    polling = limits.polling(arguments.busy_poll)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    identity = FileIdentity(tls) if tls else None
    server: Any
    async with contextlib.AsyncExitStack() as stack:
        if make == "service":
            logs.setup("bench", level="warning" if access_log == "failed" else "info")
            server = Server("127.0.0.1:0", identity, access_log=access_log, limits=polling)
            await stack.enter_async_context(spans.drained(lambda taken: None))  # nobody to export them to
        elif make == "native":
            server = NativeServer("127.0.0.1:0", identity, metrics=False, limits=polling)
        else:
            server = grpc.aio.server()
        add_to_server(servicer, server)
        address = bind(server, tls) if make == "aio" else None
        address = await server.start() or address
        print(address, flush=True)
        await stopped.wait()
        await server.stop(0)


def serve_grpcio(servicer: Any, tls: Path | None) -> None:
    """Serve with grpcio's threads."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(THREADS))
    add_to_server(servicer, server)
    address = bind(server, tls)
    server.start()
    print(address, flush=True)
    signal.sigwait([signal.SIGTERM])
    server.stop(0)


def bind(server: Any, tls: Path | None) -> str:
    """Bind grpcio's server, with mutual TLS when there is a folder; return its address."""
    if tls is None:
        return f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    chain, key, bundle = ((tls / name).read_bytes() for name in ("cert.pem", "key.pem", "ca.pem"))
    credentials = grpc.ssl_server_credentials([(key, chain)], bundle, require_client_auth=True)
    return f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"


if __name__ == "__main__":
    main()
