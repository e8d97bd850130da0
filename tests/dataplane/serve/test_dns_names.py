"""DNS names, where one side knows only those: verified as web servers' are, by our own authorities alone."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from serve_certificates import Issued, Leaf, issue, openssl_server, server_context
from serve_echo import AsyncEcho, EchoStub
from serve_rig import CLIENT_ID, NAME, SERVER_ID, code_of, native_channel, native_server, until

from meshwright.core.identity import StaticIdentity
from pki import Pki

PATH = "/meshwright.test.Echo/"
HOST = "webhook.test.svc"


async def test_a_server_is_known_by_its_dns_name(
    echo: AsyncEcho, server_identity: StaticIdentity, client_identity: StaticIdentity
) -> None:
    """Its SPIFFE ID is then learnt from it."""
    async with native_server(echo, identity=server_identity) as (_, address):
        async with native_channel(address, client_identity, peer=f"dns:{NAME}") as channel:
            assert await EchoStub(channel).unary("caller", timeout=10) == CLIENT_ID
            assert channel.peer_id() == SERVER_ID
        async with native_channel(address, client_identity, peer="dns:other.test.svc") as channel:
            code, details = await code_of(EchoStub(channel).unary("hello", timeout=10))
            assert (code, "not valid for name" in details) == (grpc.StatusCode.UNAVAILABLE, True), details


@pytest.mark.parametrize(("host", "allowed"), [("a.test.svc", True), ("a.b.test.svc", False), ("test.svc", False)])
async def test_wildcards_stand_for_one_label(
    echo: AsyncEcho, pki: Pki, client_identity: StaticIdentity, host: str, allowed: bool
) -> None:
    """As for web servers."""
    server_identity = StaticIdentity(pki.identity(SERVER_ID, dns=["*.test.svc"]))
    async with (
        native_server(echo, identity=server_identity) as (_, address),
        native_channel(address, client_identity, peer=f"dns:{host}") as channel,
    ):
        call = EchoStub(channel).unary("hello", timeout=10)
        if allowed:
            assert await call == "hello"
        else:
            assert (await code_of(call))[0] is grpc.StatusCode.UNAVAILABLE


async def test_a_federated_authority_cant_give_our_hosts_names(
    echo: AsyncEcho, pki: Pki, client_identity: StaticIdentity
) -> None:
    """It vouches for its members' IDs, never for a host."""
    foreign = Pki()
    server_identity = foreign.identity("spiffe://other.domain/x", dns=[NAME])
    client_identity.replace(
        dataclasses.replace(client_identity.current(), federated={"other.domain": foreign.bundle_pem})
    )
    server_identity = dataclasses.replace(server_identity, federated={"mesh.local": pki.bundle_pem})
    async with native_server(echo, identity=StaticIdentity(server_identity)) as (_, address):
        async with native_channel(address, client_identity, peer="spiffe://other.domain/x") as channel:
            assert await EchoStub(channel).unary("hello", timeout=10) == "hello"
        async with native_channel(address, client_identity, peer=f"dns:{NAME}") as channel:
            assert (await code_of(EchoStub(channel).unary("hello", timeout=10)))[0] is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(("peer", "sent"), [(f"dns:{HOST}", HOST), (SERVER_ID, None)])
async def test_sni_is_sent_with_a_dns_name_only(
    pki: Pki, client_identity: StaticIdentity, tmp_path: Path, peer: str, sent: str | None
) -> None:
    """A server of several names chooses by it; a SPIFFE ID is no name that it can carry."""
    seen: list[str | None] = []
    context = server_context(issue(pki, Leaf([SERVER_ID], [HOST])).write(tmp_path, pki.bundle_pem))
    context.sni_callback = lambda stream, name, context: seen.append(name)
    async with openssl_server(context) as address, native_channel(address, client_identity, peer=peer) as channel:
        await channel.ready(10)
        assert channel.peer_id() == SERVER_ID
    assert seen == [sent]


async def test_a_server_without_a_spiffe_id(pki: Pki, client_identity: StaticIdentity, tmp_path: Path) -> None:
    """Is taken by its DNS name only."""
    context = server_context(issue(pki, Leaf([], [HOST])).write(tmp_path, pki.bundle_pem))
    async with openssl_server(context) as address:
        async with native_channel(address, client_identity, peer=f"dns:{HOST}") as channel:
            await channel.ready(10)
            assert channel.peer_id() is None
        async with native_channel(address, client_identity) as channel:
            code, details = await code_of(EchoStub(channel).unary("", timeout=10))
            assert (code, "it carries no SPIFFE ID" in details) == (grpc.StatusCode.UNAVAILABLE, True), details


class Who(AsyncEcho):
    async def unary(self, request: str, context: Any) -> str:
        known = context.auth_context()
        return b" ".join([*known["x509_subject_alternative_name"], *known.get("peer_spiffe_id", [])]).decode()


def grpcio_channel(address: str, pki: Pki, issued: Issued, folder: Path) -> grpc.aio.Channel:
    issued.write(folder, pki.bundle_pem)
    key, chain = (folder / "key.pem").read_bytes(), (folder / "cert.pem").read_bytes()
    credentials = grpc.ssl_channel_credentials(pki.bundle_pem, key, chain)
    return grpc.aio.secure_channel(address, credentials, [("grpc.ssl_target_name_override", NAME)])


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        ([(PATH, [f"dns:{HOST}"])], grpc.StatusCode.OK),
        ([(PATH, ["dns:*"])], grpc.StatusCode.OK),
        ([(PATH, ["dns:other.svc"])], grpc.StatusCode.PERMISSION_DENIED),
        ([(PATH + "Other", [f"dns:{HOST}"])], grpc.StatusCode.PERMISSION_DENIED),
        ([(PATH, ["*"])], grpc.StatusCode.UNAVAILABLE),  # no rule names a host: it isn't let in at all
        (None, grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_a_client_without_a_spiffe_id_needs_a_rule(
    server_identity: StaticIdentity,
    pki: Pki,
    tmp_path: Path,
    reasons: Callable[[], list[str]],
    rules: Any,
    code: grpc.StatusCode,
) -> None:
    """Deny is the default: only a server whose rules name a DNS name takes such certificates at all."""
    issued = issue(pki, Leaf([], [HOST.upper(), "second.svc"]))
    async with (
        native_server(Who(), identity=server_identity, authorize=rules) as (server, address),
        grpcio_channel(address, pki, issued, tmp_path) as channel,
    ):
        call = EchoStub(channel).unary("hello", timeout=10)
        if code is grpc.StatusCode.OK:
            assert await call == f"{HOST} second.svc"
        else:
            refused, details = await code_of(call)
            assert refused is code, details
        if code is grpc.StatusCode.PERMISSION_DENIED:
            assert details.startswith(f"dns:{HOST} may not call")
        if code is grpc.StatusCode.UNAVAILABLE:
            await until(reasons)
            assert "it carries no SPIFFE ID" in reasons()[0]
            assert server.stats()["handshakes_failed"] >= 1


async def test_a_rule_names_members_by_dns_name_too(server_identity: StaticIdentity, pki: Pki, tmp_path: Path) -> None:
    """Who has a SPIFFE ID and a DNS name is known by both."""
    rules = [(PATH, [f"dns:{HOST}"])]
    async with native_server(Who(), identity=server_identity, authorize=rules) as (_, address):
        async with grpcio_channel(address, pki, issue(pki, Leaf([CLIENT_ID], [HOST])), tmp_path) as channel:
            assert await EchoStub(channel).unary("", timeout=10) == f"{CLIENT_ID} {HOST} {CLIENT_ID}"
        async with grpcio_channel(address, pki, issue(pki, Leaf([CLIENT_ID], ["x.svc"])), tmp_path) as channel:
            code, details = await code_of(EchoStub(channel).unary("", timeout=10))
            assert (code, details.startswith(CLIENT_ID)) == (grpc.StatusCode.PERMISSION_DENIED, True)


async def test_openssl_verifies_our_server_by_its_name(
    echo: AsyncEcho, server_identity: StaticIdentity, client_identity: StaticIdentity, tmp_path: Path
) -> None:
    """An unmodified client that knows nothing of SPIFFE."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl(1)")
    folder = Pki.write(client_identity.current(), tmp_path)
    async with native_server(echo, identity=server_identity) as (_, address):

        def connect(host: str) -> subprocess.CompletedProcess[bytes]:
            command = ["openssl", "s_client", "-connect", address, "-servername", host, "-verify_hostname", host]
            command += ["-verify_return_error", "-CAfile", f"{folder}/ca.pem", "-alpn", "h2", "-brief"]
            command += ["-cert", f"{folder}/cert.pem", "-key", f"{folder}/key.pem"]
            return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False)

        good = await asyncio.to_thread(connect, NAME)
        assert good.returncode == 0, good.stderr
        assert b"Protocol version: TLSv1.3" in good.stderr
        bad = await asyncio.to_thread(connect, "other.test.svc")
        assert bad.returncode != 0
        assert b"hostname mismatch" in bad.stderr.lower(), bad.stderr


async def test_pythons_ssl_verifies_our_server_by_its_name(
    echo: AsyncEcho, server_identity: StaticIdentity, client_identity: StaticIdentity, tmp_path: Path
) -> None:
    """The same with Python's module, which refuses another name."""
    folder = Pki.write(client_identity.current(), tmp_path)
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    async with native_server(echo, identity=server_identity) as (_, address):
        host, _, port = address.rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=NAME)
        writer.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection(host, int(port), ssl=context, server_hostname="other.test.svc")
