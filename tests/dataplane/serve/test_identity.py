"""Mutual TLS by SPIFFE ID: who is let in, who is refused, and rotation while calls run."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import grpc
import pytest
from serve_echo import AsyncEcho, EchoStub
from serve_rig import CLIENT_ID, NAME, SERVER_ID, code_of, grpcio_credentials, native_channel, native_server

from meshwright.core.identity import StaticIdentity
from meshwright.dataplane.grpc import NativeServer
from pki import Pki

PATH = "/meshwright.test.Echo/"


@pytest.mark.parametrize("peer", [SERVER_ID, "spiffe://mesh.local/ns/test/*", "spiffe://mesh.local/*", ""])
async def test_the_server_is_known_by_its_id(
    echo: AsyncEcho, server_identity: StaticIdentity, client_identity: StaticIdentity, peer: str
) -> None:
    """An exact ID, a prefix or any member of the trust domain; both sides learn who the other is."""
    async with (
        native_server(echo, identity=server_identity) as (_, address),
        native_channel(address, client_identity, peer=peer) as channel,
    ):
        assert channel.peer_id() is None
        await channel.ready(10)
        assert channel.peer_id() == SERVER_ID
        certificate = ssl.DER_cert_to_PEM_cert(channel.peer_certificate() or b"")
        assert certificate.encode() == server_identity.current().cert_chain_pem
        assert await EchoStub(channel).unary("caller", timeout=10) == CLIENT_ID


async def test_a_grpcio_caller_is_known_too(
    echo: AsyncEcho, server_identity: StaticIdentity, client_identity: StaticIdentity
) -> None:
    """auth_context carries the SPIFFE ID whoever the client is."""
    async with native_server(echo, identity=server_identity) as (_, address):
        options = [("grpc.ssl_target_name_override", NAME)]
        async with grpc.aio.secure_channel(address, grpcio_credentials(client_identity), options) as channel:
            assert await EchoStub(channel).unary("caller", timeout=10) == CLIENT_ID


async def test_another_server_is_refused(
    echo: AsyncEcho, server_identity: StaticIdentity, client_identity: StaticIdentity
) -> None:
    """A member of the trust domain that isn't the expected server doesn't get the call."""
    async with (
        native_server(echo, identity=server_identity) as (_, address),
        native_channel(address, client_identity, peer="spiffe://mesh.local/ns/test/sa/other") as channel,
    ):
        code, details = await code_of(EchoStub(channel).unary("hello", timeout=10))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert f"the server is {SERVER_ID}, expected spiffe://mesh.local/ns/test/sa/other" in details


async def test_foreign_authorities_are_refused_on_both_sides(
    echo: AsyncEcho, server_identity: StaticIdentity, client_identity: StaticIdentity
) -> None:
    """Neither a client nor a server of another CA is taken, whatever names it claims."""
    foreign = Pki()
    impostor = StaticIdentity(foreign.identity(CLIENT_ID))
    async with native_server(echo, identity=server_identity) as (server, address):
        async with native_channel(address, impostor) as channel:
            code, details = await code_of(EchoStub(channel).unary("hello", timeout=10))
            assert (code, "invalid peer certificate" in details) == (grpc.StatusCode.UNAVAILABLE, True), details
        # A client that trusts the server but whose own certificate is foreign.
        mixed = foreign.identity(CLIENT_ID)
        object.__setattr__(mixed, "bundle_pem", server_identity.current().bundle_pem)
        async with native_channel(address, StaticIdentity(mixed)) as channel:
            code, details = await code_of(EchoStub(channel).unary("hello", timeout=10))
            assert (code, "received fatal alert" in details) == (grpc.StatusCode.UNAVAILABLE, True), details
        assert server.stats()["handshakes_failed"] == 2
        assert server.stats()["calls_started"] == 0


async def test_another_trust_domain_is_refused(echo: AsyncEcho, server_identity: StaticIdentity, pki: Pki) -> None:
    """An authority speaks for its own trust domain only: its certificate for another one isn't taken."""
    stranger = StaticIdentity(pki.identity("spiffe://other.domain/ns/test/sa/client"))
    async with (
        native_server(echo, identity=server_identity) as (_, address),
        native_channel(address, stranger) as channel,
    ):
        code, details = await code_of(EchoStub(channel).unary("hello", timeout=10))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "of another trust domain than other.domain" in details


async def test_plain_text_and_anonymous_clients_are_refused(
    echo: AsyncEcho, server_identity: StaticIdentity, pki: Pki
) -> None:
    """Without TLS, and without a certificate, there is no call."""
    async with native_server(echo, identity=server_identity) as (server, address):
        async with native_channel(address) as channel:
            assert (await code_of(EchoStub(channel).unary("hello", timeout=10)))[0] is grpc.StatusCode.UNAVAILABLE
        anonymous = grpc.ssl_channel_credentials(pki.bundle_pem)
        options = [("grpc.ssl_target_name_override", NAME)]
        async with grpc.aio.secure_channel(address, anonymous, options) as channel:
            assert (await code_of(EchoStub(channel).unary("hello", timeout=10)))[0] is grpc.StatusCode.UNAVAILABLE
        assert server.stats()["calls_started"] == 0


async def test_a_certificate_without_a_spiffe_id_is_refused(
    echo: AsyncEcho, server_identity: StaticIdentity, pki: Pki
) -> None:
    """A URI name that is no SPIFFE ID identifies nobody."""
    nobody = StaticIdentity(pki.identity("https://mesh.local/x"))
    async with native_server(echo, identity=server_identity) as (_, address):
        async with grpc.aio.secure_channel(
            address, grpcio_credentials(nobody), [("grpc.ssl_target_name_override", NAME)]
        ) as channel:
            assert (await code_of(EchoStub(channel).unary("hello", timeout=10)))[0] is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(ValueError, match=r"cert_chain_pem.*the scheme must be spiffe://"):
            async with native_channel(address, nobody):
                pass


async def test_rotation_loses_nothing(pki: Pki, echo: AsyncEcho) -> None:
    """Both sides rotate to a new authority during a stream: it goes on, and new calls use the new identity."""
    new = Pki()
    both = pki.bundle_pem + new.bundle_pem
    identities = []
    for spiffe_id in (SERVER_ID, CLIENT_ID):
        identity = pki.identity(spiffe_id)
        object.__setattr__(identity, "bundle_pem", both)
        identities.append(StaticIdentity(identity))
    server_identity, client_identity = identities
    async with (
        native_server(echo, identity=server_identity) as (server, address),
        native_channel(address, client_identity, peer=SERVER_ID) as channel,
    ):
        stub = EchoStub(channel)
        stream = stub.chat(timeout=30)
        await stream.write("before")
        assert await stream.read() == "BEFORE"
        old = channel.peer_certificate()

        server_identity.replace(new.identity(SERVER_ID))
        client_identity.replace(new.identity(CLIENT_ID))
        async with asyncio.timeout(10):
            while channel.peer_certificate() == old:  # calls go through all the time
                assert await stub.unary("during", timeout=10) == "during"
        certificate = ssl.DER_cert_to_PEM_cert(channel.peer_certificate() or b"")
        assert certificate.encode() == server_identity.current().cert_chain_pem

        await stream.write("after")
        assert await stream.read() == "AFTER"
        assert server.stats()["connections_open"] == 2
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
        async with asyncio.timeout(10):
            while server.stats()["connections_open"] > 1:  # the old connection ends with its last call
                await asyncio.sleep(0)
        assert await stub.unary("caller", timeout=10) == CLIENT_ID

        # Who still shows the old authority's certificate isn't let in any more.
        async with native_channel(address, StaticIdentity(pki.identity(CLIENT_ID))) as late:
            assert (await code_of(EchoStub(late).unary("hello", timeout=10)))[0] is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("rules", "allowed"),
    [
        ([(PATH, [CLIENT_ID])], True),
        ([(PATH, ["spiffe://mesh.local/ns/test/*"])], True),
        ([(PATH, ["spiffe://mesh.local/ns/other/*"])], False),
        ([("/another.Service/", [CLIENT_ID])], False),
        ([], False),
        ([(PATH + "Unary", [CLIENT_ID]), (PATH, [])], True),
    ],
)
async def test_authorization(
    echo: AsyncEcho,
    server_identity: StaticIdentity,
    client_identity: StaticIdentity,
    rules: list[tuple[str, list[str]]],
    allowed: bool,
) -> None:
    """What no rule allows is refused before any handler, naming the caller and the method."""
    async with (
        native_server(echo, identity=server_identity, authorize=rules) as (server, address),
        native_channel(address, client_identity) as channel,
    ):
        call = EchoStub(channel).unary("hello", timeout=10)
        if allowed:
            assert await call == "hello"
        else:
            code, details = await code_of(call)
            assert code is grpc.StatusCode.PERMISSION_DENIED
            assert details.startswith(f"{CLIENT_ID} may not call /meshwright.test.Echo/Unary")
            assert server.stats()["calls_denied"] == 1


def test_plain_text_stays_on_this_host() -> None:
    """A server without an identity doesn't listen beyond loopback and Unix sockets."""
    for address in ("0.0.0.0:0", "[::]:0", "192.0.2.1:80", "example.org:80"):
        with pytest.raises(ValueError, match="plain text"):
            NativeServer(address, None)
    for address in ("127.0.0.1:0", "[::1]:0", "localhost:0", "unix:/tmp/x.sock"):
        NativeServer(address, None)


async def test_callers_on_a_plain_unix_socket_are_named_by_their_user(echo: AsyncEcho, tmp_path: Any) -> None:
    """Rules and handlers see the user id that the kernel vouches for."""
    import os

    rules = [(PATH, [f"unix:uid={os.getuid()}"])]
    address = f"unix:{tmp_path}/admin.sock"
    async with native_server(echo, address, authorize=rules), native_channel(address) as channel:
        assert await EchoStub(channel).unary("hello", timeout=10) == "hello"
        assert channel.peer_id() is None
    assert not (tmp_path / "admin.sock").exists()
