"""What a stranger gets from a listening port: the demo's proof that every port refuses plain text and foreign papers.

One decision to know: "refused" means that not one byte of an answer came back, other than a TLS alert or the fixed
HTTP 400 with which some TLS servers tell a plain-text client that they speak TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import tempfile
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

_WAIT_SECONDS = 3.0  # for a server that says nothing: it may be waiting for a ClientHello
_ALERT = 0x15  # TLS record type (RFC 8446 section 5.1)

_HTTP1 = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
_HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"  # preface and empty SETTINGS
_NATS = b'CONNECT {"verbose":true}\r\nPING\r\n'


async def plain_text(host: str, port: int) -> str:
    """Speak HTTP/1.1, HTTP/2 and NATS without TLS; return what useful came back, or an empty string."""
    for name, hello in (("HTTP/1.1", _HTTP1), ("HTTP/2", _HTTP2), ("NATS", _NATS)):
        try:
            reader, writer = await asyncio.open_connection(host, port)
        except OSError:
            continue
        answer = await _exchange(reader, writer, hello)
        if answer and answer[0] != _ALERT and not answer.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 ")):
            return f"answered plain {name} with {answer[:60]!r}"
    return ""


async def foreign(host: str, port: int, tls: ssl.SSLContext) -> str:
    """Come with `tls` (papers of another CA, or none); return what came back through it, or an empty string."""
    for hello in (_HTTP1, _HTTP2, _NATS):
        try:
            reader, writer = await asyncio.open_connection(host, port, ssl=tls)
        except (OSError, ssl.SSLError):
            continue  # refused in the handshake
        answer = await _exchange(reader, writer, hello)  # TLS 1.3 refuses after the client believes to be done
        if answer:
            return f"answered {answer[:60]!r}"
    return ""


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hello: bytes) -> bytes:
    try:
        async with asyncio.timeout(_WAIT_SECONDS):
            writer.write(hello)
            return await reader.read(4096)
    except (OSError, ssl.SSLError, TimeoutError):
        return b""
    finally:
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
            async with asyncio.timeout(1.0):
                await writer.wait_closed()


def foreign_context(spiffe_id: str) -> ssl.SSLContext:
    """Return a client context with a certificate that says `spiffe_id`, signed by a CA that nobody trusts."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a foreign CA")])
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root")])  # etcd's most powerful user
    ca = _sign(ca_name, ca_name, ca_key, ca_key, x509.BasicConstraints(ca=True, path_length=None))
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)])
    usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    leaf = _sign(subject, ca_name, key, ca_key, names, usages)
    tls = anonymous_context()
    with tempfile.NamedTemporaryFile(mode="wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        for certificate in (leaf, ca):
            file.write(certificate.public_bytes(serialization.Encoding.PEM))
        file.flush()
        tls.load_cert_chain(file.name)
    return tls


def anonymous_context() -> ssl.SSLContext:
    """Return a client context without a certificate that accepts any server: a stranger doesn't care who answers."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname = False
    tls.verify_mode = ssl.CERT_NONE
    tls.set_alpn_protocols(["h2", "http/1.1"])
    return tls


def _sign(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    *extensions: x509.ExtensionType,
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    return builder.sign(signer, hashes.SHA256())
