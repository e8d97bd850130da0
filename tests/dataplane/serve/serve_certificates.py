"""Certificates of every kind, good and bad, for peers that aren't ours (OpenSSL's, grpcio's)."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pki import Pki

DIGITAL_SIGNATURE = {"digital_signature": True}
_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


@dataclass(frozen=True)
class Leaf:
    """What to put into a certificate; `usage` None leaves the extension out."""

    uris: Sequence[str] = ()
    dns: Sequence[str] = ()
    since: timedelta = timedelta(minutes=-1)
    until: timedelta = timedelta(hours=1)
    ca: bool = False
    usage: dict[str, bool] | None = None
    purposes: Sequence[Any] = BOTH
    key: Callable[[], Any] = lambda: ec.generate_private_key(ec.SECP256R1())
    critical: x509.UnrecognizedExtension | None = None


@dataclass(frozen=True)
class Issued:
    """A certificate with its key and what leads to its root."""

    certificate: x509.Certificate
    key: Any
    others: tuple[x509.Certificate, ...] = ()

    def write(self, folder: Path, bundle_pem: bytes) -> Path:
        """Write cert.pem, key.pem and ca.pem into `folder` and return it."""
        folder.mkdir(parents=True, exist_ok=True)
        chain = [one.public_bytes(serialization.Encoding.PEM) for one in (self.certificate, *self.others)]
        (folder / "cert.pem").write_bytes(b"".join(chain))
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (folder / "key.pem").write_bytes(self.key.private_bytes(*form))
        (folder / "ca.pem").write_bytes(bundle_pem)
        return folder


def issue(pki: Pki, leaf: Leaf, *, by: Issued | None = None) -> Issued:
    """Issue a certificate by the authority, or by another certificate of whatever kind."""
    key = leaf.key()
    issuer, issuer_key = (by.certificate, by.key) if by else (pki.certificate, pki.key)
    now = datetime.now(UTC)
    names: list[x509.GeneralName] = [*map(x509.UniformResourceIdentifier, leaf.uris), *map(x509.DNSName, leaf.dns)]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"leaf {x509.random_serial_number()}")]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + leaf.since)
        .not_valid_after(now + leaf.until)
        .add_extension(x509.BasicConstraints(ca=leaf.ca, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if leaf.usage is not None:
        usages = {usage: leaf.usage.get(usage, False) for usage in _USAGES}
        builder = builder.add_extension(x509.KeyUsage(**usages), critical=True)
    if leaf.purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(leaf.purposes), critical=False)
    if leaf.critical is not None:
        builder = builder.add_extension(leaf.critical, critical=True)
    others = (by.certificate, *by.others) if by else ()
    return Issued(builder.sign(issuer_key, hashes.SHA256()), key, others)


def tampered(issued: Issued) -> Issued:
    """The same certificate with the last byte of its signature changed."""
    der = bytearray(issued.certificate.public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    return replace(issued, certificate=x509.load_der_x509_certificate(bytes(der)))


def client_context(folder: Path) -> ssl.SSLContext:
    """OpenSSL as a client that shows cert.pem, whatever it is, and takes any server of the bundle."""
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # weak keys are for our side to refuse
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    return context


def server_context(folder: Path) -> ssl.SSLContext:
    """OpenSSL as a server that shows cert.pem and wants a client of the bundle."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    context.load_verify_locations(folder / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    return context


@contextlib.asynccontextmanager
async def openssl_server(context: ssl.SSLContext) -> AsyncIterator[str]:
    """Serve the beginning of HTTP/2 (empty SETTINGS) and nothing more; yields the address."""

    open_now: set[asyncio.StreamWriter] = set()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_now.add(writer)
        with contextlib.suppress(OSError):
            writer.write(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            while await reader.read(4096):
                pass
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        open_now.discard(writer)

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=context)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in open_now:
            writer.transport.abort()
        async with asyncio.timeout(10):
            while open_now:
                await asyncio.sleep(0.01)
