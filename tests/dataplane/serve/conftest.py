"""Servers and channels of both makes, so that each promise is tested against grpcio itself."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from serve_echo import AsyncEcho, EchoStub, add_echo_to_server
from serve_rig import CLIENT_ID, NAME, SERVER_ID, grpcio_credentials, native_server

from meshwright.core.identity import StaticIdentity
from meshwright.dataplane.grpc import NativeChannel


@pytest.fixture
def server_identity(pki: Any) -> StaticIdentity:
    return StaticIdentity(pki.identity(SERVER_ID, dns=[NAME]))


@pytest.fixture
def client_identity(pki: Any) -> StaticIdentity:
    return StaticIdentity(pki.identity(CLIENT_ID))


Connect = Callable[[Any], Awaitable[EchoStub]]


@pytest.fixture(params=["native-native", "native-grpcio", "grpcio-native"])
async def connect(
    request: pytest.FixtureRequest, server_identity: StaticIdentity, client_identity: StaticIdentity
) -> AsyncIterator[Connect]:
    """Serve a servicer and return a stub that calls it, both with mutual TLS: server's make - client's make."""
    server_make, client_make = request.param.split("-")
    async with contextlib.AsyncExitStack() as stack:

        async def connected(servicer: Any) -> EchoStub:
            if server_make == "native":
                _, address = await stack.enter_async_context(native_server(servicer, identity=server_identity))
            else:
                server = grpc.aio.server()
                add_echo_to_server(servicer, server)
                identity = server_identity.current()
                credentials = grpc.ssl_server_credentials(
                    [(identity.key_pem, identity.cert_chain_pem)], identity.bundle_pem, require_client_auth=True
                )
                address = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"
                await server.start()
                stack.push_async_callback(server.stop, 0)
            channel: Any
            if client_make == "native":
                channel = NativeChannel(address, client_identity, peer=SERVER_ID)
            else:
                options = [("grpc.ssl_target_name_override", NAME)]
                channel = grpc.aio.secure_channel(address, grpcio_credentials(client_identity), options)
            await stack.enter_async_context(channel)
            return EchoStub(channel)

        yield connected


@pytest.fixture
def reasons(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Why servers have refused connections, as they told the log."""
    caplog.set_level(logging.INFO, "meshwright.dataplane.grpc")  # whatever level a service's test left behind
    return lambda: [str(getattr(record, "reason", "")) for record in caplog.records]


@pytest.fixture
def echo() -> AsyncEcho:
    return AsyncEcho()
