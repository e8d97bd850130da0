"""TLS 1.3, and 1.2 for old peers where `tls_versions` allows it, on both sides."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from serve_certificates import Leaf, client_context, issue, server_context
from serve_echo import AsyncEcho, EchoStub
from serve_rig import CLIENT_ID, NAME, SERVER_ID, Relay, code_of, native_channel, native_server, until

from meshwright.core.identity import StaticIdentity
from meshwright.dataplane.grpc import NativeServer
from pki import Pki

OLD = ("1.3", "1.2")


async def version(context: ssl.SSLContext, address: str) -> str | None:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=NAME)
    try:
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        assert (await reader.readexactly(9))[3] == 4  # SETTINGS
        return str(writer.get_extra_info("ssl_object").version())
    finally:
        writer.close()


@pytest.mark.parametrize("most", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("allowed", [("1.3",), OLD])
async def test_an_old_client(
    echo: AsyncEcho,
    server_identity: StaticIdentity,
    client_identity: StaticIdentity,
    tmp_path: Path,
    reasons: Callable[[], list[str]],
    most: ssl.TLSVersion,
    allowed: tuple[str, ...],
) -> None:
    """Is refused with the setting's name, unless that allows 1.2; a new one always speaks 1.3."""
    context = client_context(Pki.write(client_identity.current(), tmp_path))
    context.maximum_version = most
    async with native_server(echo, identity=server_identity, tls_versions=allowed) as (server, address):
        if most is ssl.TLSVersion.TLSv1_2 and allowed != OLD:
            with pytest.raises(ssl.SSLError):
                await version(context, address)
            await until(reasons)
            assert "tls_versions allows 1.3 only here" in reasons()[0]
            assert server.stats()["handshakes_failed"] == 1
        else:
            assert await version(context, address) == ("TLSv1.2" if most is ssl.TLSVersion.TLSv1_2 else "TLSv1.3")


def shake_hands(listener: socket.socket, context: ssl.SSLContext) -> None:
    """Accept a connection, begin HTTP/2 and wait for its end. (asyncio's server would end without OpenSSL's alert.)"""
    plain, _ = listener.accept()
    with plain, contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as stream:
        stream.sendall(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        while stream.recv(4096):
            pass


@pytest.mark.parametrize("allowed", [("1.3",), OLD])
async def test_an_old_server(
    pki: Pki, client_identity: StaticIdentity, tmp_path: Path, allowed: tuple[str, ...]
) -> None:
    """The same on the client's side."""
    context = server_context(issue(pki, Leaf([SERVER_ID])).write(tmp_path, pki.bundle_pem))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        serving = asyncio.create_task(asyncio.to_thread(shake_hands, listener, context))
        async with native_channel(address, client_identity, tls_versions=allowed) as channel:
            if allowed == OLD:
                await channel.ready(10)
                assert channel.peer_id() == SERVER_ID
            else:
                code, details = await code_of(EchoStub(channel).unary("", timeout=10))
                expected = "tls_versions allows 1.3 only here"
                assert (code, expected in details) == (grpc.StatusCode.UNAVAILABLE, True), details
        await serving


async def test_a_server_that_speaks_1_2_gives_no_tickets(
    echo: AsyncEcho, server_identity: StaticIdentity, client_identity: StaticIdentity
) -> None:
    """Each connection is begun anew, and works."""
    async with (
        native_server(echo, identity=server_identity, tls_versions=OLD) as (server, address),
        Relay.to(address) as (relay, through),
        native_channel(through, client_identity, peer=SERVER_ID) as channel,
    ):
        for _ in range(2):
            assert await EchoStub(channel).unary("caller", timeout=10, wait_for_ready=True) == CLIENT_ID
            relay.cut()
            await until(lambda: channel.get_state() is not grpc.ChannelConnectivity.READY)
        assert server.stats()["handshakes_resumed"] == 0


@pytest.mark.parametrize("versions", [("1.2",), ("1.1", "1.3"), (), "1.3"])
async def test_malformed_versions_are_refused(server_identity: StaticIdentity, versions: tuple[str, ...]) -> None:
    """By the setting's name."""
    server = NativeServer("127.0.0.1:0", server_identity, tls_versions=versions)
    with pytest.raises(ValueError, match="tls_versions"):
        await server.start()
