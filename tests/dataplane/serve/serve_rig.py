"""Servers and channels of the tests in this folder, and who they are."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
from serve_echo import add_echo_to_server

from meshwright.dataplane.grpc import NativeChannel, NativeServer

SERVER_ID = "spiffe://mesh.local/ns/test/sa/server"
CLIENT_ID = "spiffe://mesh.local/ns/test/sa/client"
NAME = "server.test.svc"


@contextlib.asynccontextmanager
async def native_server(
    servicer: Any, listen: str = "127.0.0.1:0", identity: Any = None, **options: Any
) -> AsyncIterator[tuple[NativeServer, str]]:
    """A running NativeServer with the echo service; yields (server, address)."""
    server = NativeServer(listen, identity, **options)
    add_echo_to_server(servicer, server)
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


def grpcio_credentials(identity: Any) -> grpc.ChannelCredentials:
    current = identity.current()
    return grpc.ssl_channel_credentials(current.bundle_pem, current.key_pem, current.cert_chain_pem)
