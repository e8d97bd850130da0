"""Certificates of the infrastructure CA: DNS and IP names for servers, a common name for clients. Pure.

One decision to know: these aren't the mesh's identities (the two of citadel's login port have URI names, in a trust
domain of their own, because our servers and channels know peers by those). etcd maps a client by its common name and
NATS by its subject, and neither reloads its trusted CA without a restart, so this CA lives ten years and its leaves
one, renewed by each run of `bootstrap` that finds less than a third of a life left.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshwright.citadel.ca.authority import serial_number

CA_LIFETIME = timedelta(days=3650)
LEAF_LIFETIME = timedelta(days=365)
BACKDATE = timedelta(hours=1)  # other machines of an etcd cluster may have worse clocks than this one

_CA_NAME = x509.Name(
    [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Meshwright"),
        x509.NameAttribute(NameOID.COMMON_NAME, "Meshwright infrastructure CA"),
    ]
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A certificate that should exist: a client when it has no `names`, else a server (and, for etcd, a peer)."""

    common_name: str
    names: tuple[str, ...] = ()
    also_client: bool = False
    uri: str = ""

    def alternative_names(self) -> list[x509.GeneralName]:
        """Return URI, DNS and IP names, each once, in the order given."""
        uris: list[x509.GeneralName] = [x509.UniformResourceIdentifier(self.uri)] if self.uri else []
        return uris + [_general_name(name) for name in dict.fromkeys(self.names)]

    def usages(self) -> list[x509.ObjectIdentifier]:
        """Return the extended key usages: etcd's peers are clients of one another."""
        server, client = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
        return [server, *([client] if self.also_client else [])] if self.names else [client]


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def load(cls, certificate_pem: bytes, key_pem: bytes) -> Self | None:
        """Return the pair, or None when the files aren't one: half written, edited, or of something else."""
        try:
            certificate = x509.load_pem_x509_certificate(certificate_pem)
            key = serialization.load_pem_private_key(key_pem, password=None)
        except (ValueError, TypeError):
            return None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            return None
        return cls(certificate, key)

    @property
    def certificate_pem(self) -> bytes:
        """The certificate in PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key as PKCS #8 in PEM, which etcd and NATS read."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def left(self, now: datetime) -> float:
        """Return the share of its life that is left; 0 or less when it isn't valid now."""
        begins, ends = self.certificate.not_valid_before_utc, self.certificate.not_valid_after_utc
        return 0.0 if now < begins else (ends - now) / (ends - begins)


def new_ca(now: datetime) -> Pair:
    """Make the infrastructure CA; it signs leaves only."""
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _begin(_CA_NAME, key, now, now + CA_LIFETIME)
        .issuer_name(_CA_NAME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    return Pair(certificate, key)


def issue(ca: Pair, wanted: Wanted, now: datetime) -> Pair:
    """Make a key and sign a certificate for it; it ends with the CA's at the latest."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, wanted.common_name)])
    identifier = ca.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        _begin(subject, key, now, min(now + LEAF_LIFETIME, ca.certificate.not_valid_after_utc))
        .issuer_name(ca.certificate.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(wanted.usages()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    if names := wanted.alternative_names():
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Pair(builder.sign(ca.key, hashes.SHA256()), key)


def fits(pair: Pair, ca: Pair, wanted: Wanted) -> bool:
    """Return whether a certificate is signed by this CA and says what is wanted now (names may have been added)."""
    certificate = pair.certificate
    try:
        certificate.verify_directly_issued_by(ca.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    try:
        names = list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        names = []
    common_names = [name.value for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    usages = list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    return common_names == [wanted.common_name] and names == wanted.alternative_names() and usages == wanted.usages()


def _begin(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, ends: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(serial_number())
        .not_valid_before((now - BACKDATE).replace(microsecond=0))
        .not_valid_after(ends.replace(microsecond=0))
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    flags: Sequence[bool] = (not authority, False, False, False, False, authority, authority, False, False)
    return x509.KeyUsage(*flags)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
