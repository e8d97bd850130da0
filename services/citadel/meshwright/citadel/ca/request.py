"""What a certificate signing request may say (PKCS #10, RFC 2986), and how it is refused.

One decision to know: only the public key and the names are ever used, and whatever else a request asks for is refused
rather than ignored: a caller that asked to be a CA and got a leaf has a bug or an intention, and should hear of both.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from meshwright.citadel.errors import RequestRefused

MAX_BYTES = 64 * 1024
MAX_DNS_NAMES = 100
RSA_BITS = range(2048, 4097)  # above 4096 one signature check costs milliseconds, which a caller could ask for often

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

_PEM_LABELS = ("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")
# Envoy's TLS library takes P-256 and P-384 without being told to; nothing in the mesh could use an Ed25519 leaf.
_CURVES = (ec.SECP256R1, ec.SECP384R1)
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
# Go's and Istio's clients fill these in without meaning anything by them. They are never copied.
_IDLE_SUBJECT = (NameOID.ORGANIZATION_NAME, NameOID.COUNTRY_NAME)
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension)
_EXTENSION_REQUEST = "1.2.840.113549.1.9.14"
_USAGES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


@dataclass(frozen=True, slots=True)
class SigningRequest:
    """A request whose signature was checked: the caller holds the key. Its names are asked for, not granted."""

    public_key: PublicKey
    uri: str | None
    dns_names: tuple[str, ...]


def from_pem(text: str | bytes) -> SigningRequest:
    """Check a request given as exactly one PEM block; raise RequestRefused for anything before, after or beside it."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(data) > MAX_BYTES:
        raise RequestRefused(f"{len(data)} bytes", field="csr", remedy=f"at most {MAX_BYTES} bytes")
    lines = data.strip().replace(b"\r\n", b"\n")
    for label in _PEM_LABELS:
        begin, end = b"-----BEGIN %s-----\n" % label.encode(), b"\n-----END %s-----" % label.encode()
        if lines.startswith(begin) and lines.endswith(end):
            try:
                return from_der(base64.b64decode(lines[len(begin) : -len(end)].replace(b"\n", b""), validate=True))
            except binascii.Error:
                break  # a second block inside ends here too: its dashes aren't base64
    raise RequestRefused(
        "not a certificate request in PEM", field="csr", remedy="send one CERTIFICATE REQUEST block and nothing else"
    )


def from_der(data: bytes) -> SigningRequest:
    """Check a request given as DER; raise RequestRefused naming the part that can't be accepted."""
    if len(data) > MAX_BYTES:
        raise RequestRefused(f"{len(data)} bytes", field="csr", remedy=f"at most {MAX_BYTES} bytes")
    try:
        csr = x509.load_der_x509_csr(data)
        key = _public_key(csr)
        _check_signature(csr, key)
        _check_subject(csr)
        _check_attributes(csr)
        uri, dns_names = _extensions(csr)
    except RequestRefused:
        raise
    except _UNREADABLE as error:
        raise RequestRefused(f"can't be read: {error}", field="csr", remedy="send a DER or PEM PKCS #10") from error
    return SigningRequest(key, uri, dns_names)


def _public_key(csr: x509.CertificateSigningRequest) -> PublicKey:
    key = csr.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        if isinstance(key.curve, _CURVES):
            return key
        raise RequestRefused(f"curve {key.curve.name}", field="csr.key", remedy="use P-256 or P-384")
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size not in RSA_BITS:
            raise RequestRefused(f"RSA of {key.key_size} bits", field="csr.key", remedy="use 2048 to 4096 bits")
        if key.public_numbers().e != 65537:
            raise RequestRefused("RSA with an unusual exponent", field="csr.key", remedy="use 65537")
        return key
    raise RequestRefused("neither EC nor RSA", field="csr.key", remedy="use EC P-256")


def _check_signature(csr: x509.CertificateSigningRequest, key: PublicKey) -> None:
    """Proof of possession: without it anyone could get a certificate for somebody else's public key."""
    algorithm = csr.signature_hash_algorithm
    if not isinstance(algorithm, _HASHES):
        raise RequestRefused("signed with a weak or unknown hash", field="csr.signature", remedy="use SHA-256")
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):  # spares parsing the key again, a tenth of the whole issue
            key.verify(csr.signature, csr.tbs_certrequest_bytes, ec.ECDSA(algorithm))
            return
        if csr.is_signature_valid:
            return
    except InvalidSignature:
        pass
    raise RequestRefused(
        "the signature doesn't fit the key", field="csr.signature", remedy="sign the request with the key it is for"
    )


def _check_subject(csr: x509.CertificateSigningRequest) -> None:
    for attribute in csr.subject:
        if attribute.oid not in _IDLE_SUBJECT:
            raise RequestRefused(
                f"subject attribute {attribute.rfc4514_attribute_name}",
                field="csr.subject",
                remedy="leave the subject empty: an identity is a URI name",
            )


def _check_attributes(csr: x509.CertificateSigningRequest) -> None:
    for attribute in csr.attributes:
        if attribute.oid.dotted_string != _EXTENSION_REQUEST:
            raise RequestRefused(
                f"attribute {attribute.oid.dotted_string}",
                field="csr.attributes",
                remedy="send extension requests only",
            )


def _extensions(csr: x509.CertificateSigningRequest) -> tuple[str | None, tuple[str, ...]]:
    uri: str | None = None
    dns_names: tuple[str, ...] = ()
    for extension in csr.extensions:
        match extension.value:
            case x509.SubjectAlternativeName() as names:
                uri, dns_names = _names(names)
            case x509.BasicConstraints(ca=False):
                pass
            case x509.KeyUsage() as usage if not (usage.key_cert_sign or usage.crl_sign):
                pass
            case x509.ExtendedKeyUsage() as usages if all(usage in _USAGES for usage in usages):
                pass
            case x509.SubjectKeyIdentifier():
                pass  # derived again from the key
            case _:
                oid = extension.oid
                asked = " to be a certificate authority" if oid in _AUTHORITY else f" extension {oid.dotted_string}"
                raise RequestRefused(
                    f"asks for{asked}",
                    field="csr.extensions",
                    remedy="ask for names only, a leaf gets the rest by itself",
                )
    return uri, dns_names


_AUTHORITY = (ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.NAME_CONSTRAINTS)


def _names(names: x509.SubjectAlternativeName) -> tuple[str | None, tuple[str, ...]]:
    uris: list[str] = []
    dns_names: list[str] = []
    for name in names:
        match name:
            case x509.UniformResourceIdentifier(value=value):
                uris.append(value)
            case x509.DNSName(value=value):
                dns_names.append(value)
            case _:
                raise RequestRefused(
                    f"name of type {type(name).__name__}", field="csr.names", remedy="ask for URI and DNS names only"
                )
    if len(uris) > 1:
        raise RequestRefused(f"{len(uris)} URI names", field="csr.names", remedy="an X509-SVID has exactly one")
    if len(dns_names) > MAX_DNS_NAMES:
        raise RequestRefused(f"{len(dns_names)} DNS names", field="csr.names", remedy=f"at most {MAX_DNS_NAMES}")
    return (uris[0] if uris else None), tuple(dns_names)
