"""Certificate requests as honest and dishonest clients send them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

WEB = "spiffe://mesh.local/ns/shop/sa/web"

Adjust = Callable[[x509.CertificateSigningRequestBuilder], x509.CertificateSigningRequestBuilder]


def csr(
    *names: x509.GeneralName,
    key: object = None,
    subject: Sequence[x509.NameAttribute] = (),
    extensions: Sequence[x509.ExtensionType] = (),
    adjust: Adjust = lambda builder: builder,
    algorithm: object = None,
) -> bytes:
    """Return a DER request signed by `key` (a new P-256 key by default)."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(list(subject)))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(names)), critical=True)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    signer = key or ec.generate_private_key(ec.SECP256R1())
    signed = adjust(builder).sign(signer, algorithm or hashes.SHA256())  # type: ignore[arg-type]
    return signed.public_bytes(serialization.Encoding.DER)


def uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


def pem(der: bytes) -> str:
    return x509.load_der_x509_csr(der).public_bytes(serialization.Encoding.PEM).decode()
