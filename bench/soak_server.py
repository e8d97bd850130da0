"""The server of `bench.soak`: `python -m bench.soak_server IDENTITY SOCKET` prints its TCP address and serves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from meshwright.core import identity
from meshwright.dataplane.grpc import NativeServer

SERVICE = "meshwright.bench.Soak"


async def echo(request: bytes, context: Any) -> bytes:
    """Answer what was said."""
    return request


async def chat(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    """Answer each message."""
    async for request in requests:
        yield request


async def wait(request: bytes, context: Any) -> bytes:
    """Answer never: for callers that cancel, or whose deadline passes."""
    await asyncio.Event().wait()
    return request


async def exchange(request: bytes, context: Any) -> bytes:
    """Take the descriptor that the request names, as "device/inode", and send it back."""
    device, inode = map(int, request.split(b"/"))
    descriptor = await context.descriptors.take(device, inode, timeout=30)
    try:
        context.send_descriptor(descriptor)
    finally:
        os.close(descriptor)
    return request


async def serve(folder: Path, socket: Path) -> None:
    """Serve until SIGTERM."""
    server = NativeServer(["127.0.0.1:0", f"unix:{socket}"], identity.FileIdentity(folder))
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
        "Wait": grpc.unary_unary_rpc_method_handler(wait),
        "Exchange": grpc.unary_unary_rpc_method_handler(exchange),
    }
    server.add_registered_method_handlers(SERVICE, handlers)
    print(await server.start(), flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop(1)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(Path(sys.argv[1]), Path(sys.argv[2])))
