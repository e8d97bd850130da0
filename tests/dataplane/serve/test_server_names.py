"""Servers with several certificates: each client sees the one for the DNS name that it asks for (SNI)."""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from serve_certificates import client_context
from serve_echo import AsyncEcho, EchoStub
from serve_rig import CLIENT_ID, NAME, SERVER_ID, native_channel, native_server

from meshwright.core import errors
from meshwright.core.identity import FileIdentity, StaticIdentity, X509Identity
from meshwright.dataplane.grpc import NativeServer
from pki import Pki

HOOK, WILD = "hook.test.svc", "*.apps.test"


def pair(pki: Pki, name: str) -> tuple[bytes, bytes]:
    made = pki.identity("spiffe://mesh.local/hook", dns=[name])
    return made.cert_chain_pem, made.key_pem


@pytest.fixture
def several(pki: Pki) -> X509Identity:
    own = pki.identity(SERVER_ID, dns=[NAME])
    return dataclasses.replace(own, named=(pair(pki, HOOK), pair(pki, WILD)))


async def shown(address: str, context: ssl.SSLContext, name: str | None) -> list[str]:
    """The DNS names of the certificate that the server shows to whom asks for `name`."""
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=name or "")
    der = writer.get_extra_info("ssl_object").getpeercert(True)
    writer.close()
    names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.DNSName)


@pytest.fixture
def context(pki: Pki, tmp_path: Path) -> ssl.SSLContext:
    return client_context(pki.write(pki.identity(CLIENT_ID), tmp_path / "client"))


async def test_the_name_decides(echo: AsyncEcho, several: X509Identity, context: ssl.SSLContext) -> None:
    """Exact, by a wildcard of one label, and its own for all other names and for none."""
    expected = {HOOK: HOOK, HOOK.upper(): HOOK, "a.apps.test": WILD, "a.b.apps.test": NAME, "x.test": NAME, None: NAME}
    async with native_server(echo, identity=StaticIdentity(several)) as (_, address):
        for asked, name in expected.items():
            assert await shown(address, context, asked) == [name], asked


async def test_members_see_the_id(echo: AsyncEcho, several: X509Identity, client_identity: StaticIdentity) -> None:
    """A channel by SPIFFE ID asks for no name; one by DNS name gets that name's certificate."""
    async with native_server(echo, identity=StaticIdentity(several)) as (_, address):
        async with native_channel(address, client_identity, peer=SERVER_ID) as channel:
            assert await EchoStub(channel).unary("caller", timeout=30) == CLIENT_ID
        async with native_channel(address, client_identity, peer=f"dns:{HOOK}") as channel:
            assert await EchoStub(channel).unary("caller", timeout=30) == CLIENT_ID
            assert channel.peer_id() == "spiffe://mesh.local/hook"


async def test_a_rotation_replaces_them(
    echo: AsyncEcho, pki: Pki, several: X509Identity, context: ssl.SSLContext
) -> None:
    """All at once, with the identity."""
    source = StaticIdentity(several)
    async with native_server(echo, identity=source) as (_, address):
        assert await shown(address, context, HOOK) == [HOOK]
        source.replace(dataclasses.replace(several, named=(pair(pki, "new.test"),)))
        assert await shown(address, context, HOOK) == [NAME]
        assert await shown(address, context, "new.test") == ["new.test"]


async def test_from_a_folder(echo: AsyncEcho, pki: Pki, tmp_path: Path, context: ssl.SSLContext) -> None:
    """`named/<any>/cert.pem` and `key.pem`; a key that isn't its certificate's leaves all as it was."""
    folder = pki.write(pki.identity(SERVER_ID, dns=[NAME]), tmp_path / "server")
    chain, key = pair(pki, HOOK)
    (folder / "named/hook").mkdir(parents=True)
    (folder / "named/hook/cert.pem").write_bytes(chain)
    (folder / "named/hook/key.pem").write_bytes(key)
    async with native_server(echo, identity=FileIdentity(folder)) as (_, address):
        assert await shown(address, context, HOOK) == [HOOK]
    (folder / "named/hook/key.pem").write_bytes(pair(pki, HOOK)[1])
    with pytest.raises(errors.ConfigError, match="doesn't belong to the certificate"):
        FileIdentity(folder)


@pytest.mark.parametrize("wrong", ["no name", "wrong key", "no certificate"])
async def test_what_can_not_be_shown_is_refused(pki: Pki, wrong: str) -> None:
    """At the start, by its place."""
    (chain, key), nameless = pair(pki, HOOK), pki.identity(CLIENT_ID)
    named: dict[str, tuple[bytes, bytes]] = {
        "no name": (nameless.cert_chain_pem, nameless.key_pem),
        "wrong key": (chain, pair(pki, HOOK)[1]),
        "no certificate": (b"", key),
    }
    identity: Any = dataclasses.replace(pki.identity(SERVER_ID), named=(named[wrong],))
    server = NativeServer("127.0.0.1:0", StaticIdentity(identity))
    with pytest.raises(ValueError, match="named"):
        await server.start()
