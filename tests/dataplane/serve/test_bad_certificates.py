"""Certificates that must be refused, shown by OpenSSL to our server and to our channel: each refusal has a reason."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier
from serve_certificates import (
    DIGITAL_SIGNATURE,
    Issued,
    Leaf,
    client_context,
    issue,
    openssl_server,
    server_context,
    tampered,
)
from serve_echo import AsyncEcho, EchoStub
from serve_rig import CLIENT_ID, NAME, NO_ISSUER, SERVER_ID, code_of, native_channel, native_server, until

from meshwright.core.identity import StaticIdentity
from pki import Pki

Make = Callable[[Pki, str], Issued]
DAY = timedelta(days=1)
CRITICAL = x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")


def by_a_leaf(pki: Pki, spiffe_id: str) -> Issued:
    return issue(pki, Leaf([spiffe_id]), by=issue(pki, Leaf(["spiffe://mesh.local/ns/test/sa/other"])))


def by_an_expired_authority(pki: Pki, spiffe_id: str) -> Issued:
    authority = issue(pki, Leaf(ca=True, usage={"key_cert_sign": True}, since=-2 * DAY, until=-DAY, purposes=()))
    return issue(pki, Leaf([spiffe_id]), by=authority)


def by_itself(pki: Pki, spiffe_id: str) -> Issued:
    return issue(Pki(), Leaf([spiffe_id]))


def one(**contents: object) -> Make:
    return lambda pki, spiffe_id: issue(pki, Leaf(**{"uris": [spiffe_id], **contents}))  # type: ignore[arg-type]


def rsa_key(bits: int) -> Callable[[], rsa.RSAPrivateKey]:
    return lambda: rsa.generate_private_key(65537, bits)


BAD: dict[str, tuple[Make, str]] = {
    "expired": (one(since=-2 * DAY, until=-DAY), "expired"),
    "not yet valid": (one(since=DAY, until=2 * DAY), "not valid yet"),
    "no name": (one(uris=[]), "no SPIFFE ID"),
    "only a DNS name": (one(uris=[], dns=[NAME]), "no SPIFFE ID"),
    "two IDs": (one(uris=[SERVER_ID, CLIENT_ID]), "several URI names"),
    "an ID and a URI": (one(uris=[SERVER_ID, "https://mesh.local/"]), "several URI names"),
    "another scheme": (one(uris=["https://mesh.local/ns/test/sa/server"]), "the scheme must be spiffe://"),
    "no path": (one(uris=["spiffe://mesh.local"]), "the path is missing"),
    "an empty segment": (one(uris=["spiffe://mesh.local//x"]), "path segments"),
    "dots": (one(uris=["spiffe://mesh.local/a/../b"]), "path segments"),
    "a query": (one(uris=["spiffe://mesh.local/a?b"]), "path segments"),
    "capitals": (one(uris=["spiffe://Mesh.local/a"]), "a trust domain has"),
    "too long": (one(uris=["spiffe://mesh.local/" + 2048 * "a"]), "longer than 2048 bytes"),
    "another trust domain": (one(uris=["spiffe://other.domain/x"]), "of another trust domain than mesh.local"),
    "of another authority": (by_itself, NO_ISSUER.pattern),
    "by a leaf": (by_a_leaf, "CaUsedAsEndEntity|EndEntityUsedAsCa|UnknownIssuer"),
    "by an expired authority": (by_an_expired_authority, "expired"),
    "tampered with": (lambda pki, spiffe_id: tampered(issue(pki, Leaf([spiffe_id]))), "BadSignature|BadEncoding"),
    "an authority's": (one(ca=True), "it is an authority's"),
    "may sign certificates": (one(usage=DIGITAL_SIGNATURE | {"key_cert_sign": True}), "keyCertSign or cRLSign"),
    "may sign revocations": (one(usage=DIGITAL_SIGNATURE | {"crl_sign": True}), "keyCertSign or cRLSign"),
    "may not sign": (one(usage={"key_encipherment": True}), "lacks digitalSignature"),
    "for mail": (one(purposes=[ExtendedKeyUsageOID.EMAIL_PROTECTION]), "does not allow extended key usage for"),
    "an unknown critical extension": (one(critical=CRITICAL), "UnsupportedCriticalExtension"),
    "RSA of 1024 bits": (one(key=rsa_key(1024)), "BadSignature"),
    # OpenSSL has no signature to offer then: as a client it shows no certificate, as a server it ends the handshake.
    "a curve that isn't known": (one(key=lambda: ec.generate_private_key(ec.SECP256K1())), "no certificates|went away"),
}
GOOD: dict[str, Make] = {
    "as citadel's": one(usage=DIGITAL_SIGNATURE),
    "without key usage": one(),
    "without purposes": one(purposes=()),
    "RSA of 2048 bits": one(key=rsa_key(2048)),
    "P-384": one(key=lambda: ec.generate_private_key(ec.SECP384R1())),
    "by an intermediate": lambda pki, spiffe_id: issue(
        pki, Leaf([spiffe_id]), by=issue(pki, Leaf(ca=True, usage={"key_cert_sign": True}, purposes=()))
    ),
}


async def speak(folder: Path, address: str) -> bool:
    """Begin HTTP/2 as a client; return whether the server answered."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):  # ssl.SSLError is one
        reader, writer = await asyncio.open_connection(
            host, int(port), ssl=client_context(folder), server_hostname=NAME
        )
        try:
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            return (await asyncio.wait_for(reader.readexactly(9), 10))[3] == 4  # SETTINGS
        finally:
            writer.close()
    return False


@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_client(
    echo: AsyncEcho,
    server_identity: StaticIdentity,
    pki: Pki,
    tmp_path: Path,
    reasons: Callable[[], list[str]],
    kind: str,
) -> None:
    """Is refused, counted and told of; the next good one is served."""
    make, reason = BAD[kind]
    async with native_server(echo, identity=server_identity) as (server, address):
        assert not await speak(make(pki, CLIENT_ID).write(tmp_path / "bad", pki.bundle_pem), address)
        await until(lambda: server.stats()["handshakes_failed"] == 1 and reasons())
        assert any(pattern in reasons()[0] for pattern in reason.split("|")), reasons()
        assert await speak(issue(pki, Leaf([CLIENT_ID])).write(tmp_path / "good", pki.bundle_pem), address)
        assert (server.stats()["handshakes_failed"], server.stats()["calls_started"]) == (1, 0)


@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_server(pki: Pki, client_identity: StaticIdentity, tmp_path: Path, kind: str) -> None:
    """Gets no call, and the error says why."""
    make, reason = BAD[kind]
    context = server_context(make(pki, SERVER_ID).write(tmp_path, pki.bundle_pem))
    async with openssl_server(context) as address, native_channel(address, client_identity) as channel:
        code, details = await code_of(EchoStub(channel).unary("", timeout=10))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert any(pattern in details for pattern in reason.split("|")), details


@pytest.mark.parametrize("kind", GOOD)
async def test_a_good_peer(
    echo: AsyncEcho,
    server_identity: StaticIdentity,
    client_identity: StaticIdentity,
    pki: Pki,
    tmp_path: Path,
    kind: str,
) -> None:
    """What SPIFFE allows is taken on both sides."""
    async with native_server(echo, identity=server_identity) as (_, address):
        assert await speak(GOOD[kind](pki, CLIENT_ID).write(tmp_path, pki.bundle_pem), address)
    context = server_context(GOOD[kind](pki, SERVER_ID).write(tmp_path, pki.bundle_pem))
    async with openssl_server(context) as address, native_channel(address, client_identity) as channel:
        await channel.ready(10)
        assert channel.peer_id() == SERVER_ID
