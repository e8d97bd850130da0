"""Servers and channels of the tests in this folder, and who they are."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from serve_echo import add_echo_to_server

from meshwright.dataplane.grpc import NativeChannel, NativeServer

SERVER_ID = "spiffe://mesh.local/ns/test/sa/server"
CLIENT_ID = "spiffe://mesh.local/ns/test/sa/client"
NAME = "server.test.svc"
# What is said of a chain that leads to no known authority: the second, when one of the same name is known.
NO_ISSUER = re.compile("UnknownIssuer|BadSignature")


@contextlib.asynccontextmanager
async def native_server(
    servicer: Any,
    listen: str = "127.0.0.1:0",
    identity: Any = None,
    *,
    add: Callable[[NativeServer], None] = lambda server: None,
    **options: Any,
) -> AsyncIterator[tuple[NativeServer, str]]:
    """A running NativeServer with the echo service, and what `add` adds; yields (server, address)."""
    server = NativeServer(listen, identity, **options)
    add_echo_to_server(servicer, server)
    add(server)
    address = await server.start()
    try:
        yield server, address
    finally:
        await server.stop(0)


@contextlib.asynccontextmanager
async def native_channel(address: str, identity: Any = None, **options: Any) -> AsyncIterator[NativeChannel]:
    """A NativeChannel that is closed at the end."""
    async with NativeChannel(address, identity, **options) as channel:
        yield channel


async def until(condition: Callable[[], Any], seconds: float = 10) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def code_of(call: Any) -> tuple[grpc.StatusCode, str]:
    """Return how a failing call ends."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


def grpcio_credentials(identity: Any) -> grpc.ChannelCredentials:
    current = identity.current()
    return grpc.ssl_channel_credentials(current.bundle_pem, current.key_pem, current.cert_chain_pem)


class Relay:
    """Passes a server's bytes on, until it is told to cut all connections."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self.connections = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._target.rpartition(":")
        self.connections += 1
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        self._writers.discard(writer)
        writer.close()

    def cut(self) -> None:
        """Close all connections, at both ends."""
        for writer in self._writers:
            writer.close()

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, target: str) -> AsyncIterator[tuple[Relay, str]]:
        """A relay to `target`; yields (relay, address)."""
        relay = cls(target)
        server = await asyncio.start_server(relay._serve, "127.0.0.1", 0)
        try:
            yield relay, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            relay.cut()
            server.close()
