"""TLS sessions are resumed, and a resumed peer is verified as any other: by the identity, bundles and clock of now."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.experimental
import pytest
from grpc.experimental import session_cache
from serve_echo import AsyncEcho, EchoStub, add_echo_to_server
from serve_rig import (
    CLIENT_ID,
    NAME,
    NO_ISSUER,
    SERVER_ID,
    Relay,
    code_of,
    grpcio_credentials,
    native_channel,
    native_server,
    until,
)

from meshwright.core.identity import StaticIdentity, X509Identity
from meshwright.dataplane.grpc import NativeChannel
from pki import Pki

SHORT = timedelta(seconds=2)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


async def answered(channel: NativeChannel, request: str) -> str:
    """The answer to a call, made again while connections break."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                return str(await EchoStub(channel).unary(request, timeout=10, wait_for_ready=True))


class Reused(AsyncEcho):
    """Says whether the caller's session was resumed."""

    async def unary(self, request: str, context: Any) -> str:
        if request == "reused":
            return b"".join(context.auth_context()["ssl_session_reused"]).decode()
        return await super().unary(request, context)


async def test_a_channel_resumes_and_is_known(server_identity: StaticIdentity, client_identity: StaticIdentity) -> None:
    """A connection that broke is made again without certificates, and both sides still know each other."""
    async with (
        native_server(Reused(), identity=server_identity) as (server, address),
        Relay.to(address) as (relay, through),
        native_channel(through, client_identity, peer=SERVER_ID) as channel,
    ):
        assert await answered(channel, "reused") == "false"
        for count in (1, 2, 3):
            relay.cut()
            await until(lambda: channel.get_state() is not grpc.ChannelConnectivity.READY)
            assert await answered(channel, "reused") == "true"
            assert await answered(channel, "caller") == CLIENT_ID
            assert channel.peer_id() == SERVER_ID
            assert ssl.DER_cert_to_PEM_cert(channel.peer_certificate() or b"").encode() == (
                server_identity.current().cert_chain_pem
            )
            assert server.stats()["handshakes_resumed"] == count
        assert server.stats()["handshakes_failed"] == 0


@pytest.mark.parametrize("who", ["server", "client"])
async def test_a_rotation_begins_anew(
    server_identity: StaticIdentity, client_identity: StaticIdentity, pki: Pki, who: str
) -> None:
    """Sessions end with the identity they were begun with, on either side."""
    async with (
        native_server(Reused(), identity=server_identity) as (server, address),
        Relay.to(address) as (relay, through),
        native_channel(through, client_identity, peer=SERVER_ID) as channel,
    ):
        assert await answered(channel, "reused") == "false"
        if who == "server":
            server_identity.replace(pki.identity(SERVER_ID, dns=[NAME]))
            relay.cut()
            await until(lambda: channel.get_state() is not grpc.ChannelConnectivity.READY)
        else:
            client_identity.replace(pki.identity(CLIENT_ID))
            await until(lambda: server.stats()["connections_accepted"] == 2)
        assert await answered(channel, "reused") == "false"
        assert server.stats()["handshakes_resumed"] == 0


async def test_an_expired_client_isnt_resumed(
    server_identity: StaticIdentity, pki: Pki, reasons: Callable[[], list[str]]
) -> None:
    """Its ticket is good but its certificate isn't: the notice says so, and a renewed client is let in again."""
    client_identity = StaticIdentity(pki.identity(CLIENT_ID, lifetime=SHORT))
    async with (
        native_server(Reused(), identity=server_identity) as (server, address),
        Relay.to(address) as (relay, through),
        native_channel(through, client_identity, peer=SERVER_ID) as channel,
    ):
        assert await answered(channel, "reused") == "false"
        await until(lambda: datetime.now(UTC) > client_identity.current().not_after + timedelta(seconds=1))
        assert await answered(channel, "reused") == "false"  # a connection that stands isn't touched
        relay.cut()
        await until(lambda: channel.get_state() is not grpc.ChannelConnectivity.READY)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await EchoStub(channel).unary("reused", timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert server.stats()["handshakes_resumed"] == 0
        client_identity.replace(pki.identity(CLIENT_ID))
        assert await answered(channel, "caller") == CLIENT_ID
    told = reasons()
    assert any(reason.startswith("resumed session: ") and "expired" in reason for reason in told), told
    # The resumed try was followed by a full one at once, which the certificate fails as well.
    assert any(not reason.startswith("resumed session: ") and "expired" in reason for reason in told), told


async def test_an_expired_server_isnt_resumed(client_identity: StaticIdentity, pki: Pki) -> None:
    """The client's side of the same: it says why, and goes on with the renewed server."""
    server_identity = StaticIdentity(pki.identity(SERVER_ID, lifetime=SHORT))
    async with (
        native_server(Reused(), identity=server_identity) as (_, address),
        Relay.to(address) as (relay, through),
        native_channel(through, client_identity, peer=SERVER_ID) as channel,
    ):
        assert await answered(channel, "reused") == "false"
        await until(lambda: datetime.now(UTC) > server_identity.current().not_after + timedelta(seconds=1))
        relay.cut()
        await until(lambda: channel.get_state() is not grpc.ChannelConnectivity.READY)
        code, details = await code_of(EchoStub(channel).unary("reused", timeout=10))
        assert (code, "expired" in details) == (grpc.StatusCode.UNAVAILABLE, True), details
        server_identity.replace(pki.identity(SERVER_ID))
        assert await answered(channel, "caller") == CLIENT_ID


async def test_a_removed_authority_isnt_resumed(
    server_identity: StaticIdentity, pki: Pki, reasons: Callable[[], list[str]]
) -> None:
    """A client whose authority the server has dropped meanwhile isn't let in by its ticket."""
    old = Pki()
    both = dataclasses.replace(server_identity.current(), bundle_pem=pki.bundle_pem + old.bundle_pem)
    server_identity.replace(both)
    client_identity = StaticIdentity(dataclasses.replace(old.identity(CLIENT_ID), bundle_pem=pki.bundle_pem))
    async with (
        native_server(Reused(), identity=server_identity) as (server, address),
        Relay.to(address) as (relay, through),
        native_channel(through, client_identity, peer=SERVER_ID) as channel,
    ):
        assert await answered(channel, "reused") == "false"
        server_identity.replace(dataclasses.replace(both, bundle_pem=pki.bundle_pem))
        relay.cut()
        await until(lambda: channel.get_state() is not grpc.ChannelConnectivity.READY)
        assert (await code_of(EchoStub(channel).unary("hello", timeout=10)))[0] is grpc.StatusCode.UNAVAILABLE
        assert server.stats()["handshakes_resumed"] == 0
        client_identity.replace(pki.identity(CLIENT_ID))
        assert await answered(channel, "caller") == CLIENT_ID
    assert any(NO_ISSUER.search(reason) for reason in reasons()), reasons()


def ssl_context(identity: X509Identity, folder: Path) -> ssl.SSLContext:
    Pki.write(identity, folder)
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    context.set_alpn_protocols(["h2"])
    return context


def speak(context: ssl.SSLContext, address: str, session: ssl.SSLSession | None = None) -> tuple[ssl.SSLSession, bool]:
    """Begin HTTP/2 by Python's ssl, verifying the server by its DNS name; return the session, and if it was resumed."""
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=NAME, session=session) as stream,
    ):
        stream.sendall(PREFACE)
        assert stream.recv(9)[3] == 4  # SETTINGS: the server has let us in, and its tickets came before
        assert stream.session is not None
        return stream.session, bool(stream.session_reused)


async def test_pythons_ssl_resumes(
    server_identity: StaticIdentity, client_identity: StaticIdentity, tmp_path: Path
) -> None:
    """OpenSSL verifies our server by its DNS name and uses its tickets."""
    context = ssl_context(client_identity.current(), tmp_path)
    async with native_server(Reused(), identity=server_identity) as (server, address):
        session, reused = await asyncio.to_thread(speak, context, address)
        assert not reused
        for count in (1, 2):
            session, reused = await asyncio.to_thread(speak, context, address, session)
            assert reused
            assert server.stats()["handshakes_resumed"] == count


async def test_grpcio_resumes(server_identity: StaticIdentity, client_identity: StaticIdentity) -> None:
    """Where its users gave it a session cache."""
    options = [("grpc.ssl_target_name_override", NAME), ("grpc.use_local_subchannel_pool", 1)]
    cache = session_cache.ssl_session_cache_lru(4)
    options.append((grpc._cython.cygrpc.ChannelArgKey.ssl_session_cache.decode(), cache))

    def call(address: str) -> str:
        with grpc.secure_channel(address, grpcio_credentials(client_identity), options) as channel:
            return str(EchoStub(channel).unary("caller", timeout=10))

    async with native_server(Reused(), identity=server_identity) as (server, address):
        for count in range(3):
            assert await asyncio.to_thread(call, address) == CLIENT_ID
            assert server.stats()["handshakes_resumed"] == count


async def test_a_channel_resumes_with_grpcios_server(
    server_identity: StaticIdentity, client_identity: StaticIdentity
) -> None:
    """BoringSSL's tickets serve as well as rustls'."""
    server = grpc.aio.server()
    add_echo_to_server(Reused(), server)
    identity = server_identity.current()
    credentials = grpc.ssl_server_credentials(
        [(identity.key_pem, identity.cert_chain_pem)], identity.bundle_pem, require_client_auth=True
    )
    address = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"
    await server.start()
    try:
        async with (
            Relay.to(address) as (relay, through),
            native_channel(through, client_identity, peer=SERVER_ID) as channel,
        ):
            assert await answered(channel, "reused") == "false"
            relay.cut()
            await until(lambda: channel.get_state() is not grpc.ChannelConnectivity.READY)
            assert await answered(channel, "reused") == "true"
            assert CLIENT_ID in await answered(channel, "caller")
    finally:
        await server.stop(0)
