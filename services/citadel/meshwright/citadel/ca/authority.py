"""The authority itself: one certificate, one key, and the certificates that it signs (X509-SVID sections 3 to 5).

One decision to know: NotBefore lies two minutes in the past, because a node whose clock is that far behind must accept
a certificate made now; NotAfter counts from the real now, so a lifetime of five seconds is five seconds.
"""

from __future__ import annotations

import secrets
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshwright.citadel.ca.profile import Profile
from meshwright.citadel.ca.request import PublicKey, SigningRequest
from meshwright.citadel.errors import AuthorityExpired, NoAuthority

BACKDATE = timedelta(minutes=2)
ROOT_LIFETIME = timedelta(days=3650)

_SHA256 = hashes.SHA256()
_NO_NAME = x509.Name([])
_LEAF = x509.BasicConstraints(ca=False, path_length=None)
_BOTH_SIDES = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])


def _usage(*, encipherment: bool = False, authority: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


_EC_USAGE, _RSA_USAGE = _usage(), _usage(encipherment=True)


@dataclass(frozen=True, slots=True)
class Issued:
    """A signed certificate, with what the audit line and the renewal need."""

    certificate_der: bytes
    serial: int
    spiffe_id: str
    not_before: datetime
    not_after: datetime

    @property
    def certificate_pem(self) -> bytes:
        """The certificate in PEM."""
        return pem(self.certificate_der)


class Authority:
    """Signs leaves directly under one root. `certificate_pem` is the trust bundle as long as there is one root."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        if certificate.public_key() != key.public_key():
            raise NoAuthority("the CA's key doesn't belong to its certificate")
        self.certificate, self._key = certificate, key
        self.not_after = certificate.not_valid_after_utc
        self.certificate_pem = certificate.public_bytes(serialization.Encoding.PEM)
        self.certificate_der = certificate.public_bytes(serialization.Encoding.DER)
        self._not_before = certificate.not_valid_before_utc
        identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        # All that is the same in every leaf is made once.
        self._blank = (
            x509.CertificateBuilder()
            .subject_name(_NO_NAME)
            .issuer_name(certificate.subject)
            .add_extension(_LEAF, critical=True)
            .add_extension(_BOTH_SIDES, critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        )

    def issue(self, request: SigningRequest, profile: Profile, *, asked_seconds: int = 0, now: datetime) -> Issued:
        """Sign a certificate for the profile's names; raise RequestRefused when the request asks for other ones.

        `asked_seconds` is the lifetime asked for, 0 for the profile's default. The certificate ends with the CA's at
        the latest; outside the CA's own life nothing is signed (AuthorityExpired).
        """
        profile.check(request)
        ends = min(_ceil(now + profile.lifetime(asked_seconds)), self.not_after)
        if not self._not_before <= now < self.not_after:
            raise AuthorityExpired(
                f"the mesh CA is valid from {self._not_before.isoformat()} to {self.not_after.isoformat()}, "
                f"and the clock says {now.isoformat()} (set the clock, or rotate the CA)"
            )
        begins = max((now - BACKDATE).replace(microsecond=0), self._not_before)
        return self._sign(request.public_key, profile, begins, ends)

    def _sign(self, public_key: PublicKey, profile: Profile, begins: datetime, ends: datetime) -> Issued:
        serial = serial_number()
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(profile.spiffe_id)]
        names += [x509.DNSName(name) for name in profile.dns_names]
        usage = _EC_USAGE if isinstance(public_key, ec.EllipticCurvePublicKey) else _RSA_USAGE
        certificate = (
            self._blank.public_key(public_key)
            .serial_number(serial)
            .not_valid_before(begins)
            .not_valid_after(ends)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            # Critical because the subject is empty (RFC 5280 section 4.2.1.6).
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .sign(self._key, _SHA256)
        )
        der = certificate.public_bytes(serialization.Encoding.DER)
        return Issued(der, serial, profile.spiffe_id, begins, ends)

    def key_der(self) -> bytes:
        """Return the CA's key as PKCS #8: only for sealing it."""
        return self._key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def new_root(trust_domain: str, now: datetime, lifetime: timedelta = ROOT_LIFETIME) -> Authority:
    """Make a self-signed root for a trust domain.

    The path length of 1 leaves room for intermediates under the same root; there are no name constraints, because the
    verifiers of this mesh compare whole SPIFFE IDs, and half of all TLS libraries treat URI constraints as unknown.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Meshwright"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{trust_domain[:40]} mesh CA"),
        ]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial_number())
        .not_valid_before((now - BACKDATE).replace(microsecond=0))
        .not_valid_after(_ceil(now + lifetime))
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]), critical=False
        )
        .sign(key, _SHA256)
    )
    return Authority(certificate, key)


def open_authority(certificate_pem: bytes, key_der: bytes) -> Authority:
    """Return the authority of a stored certificate and key; raise NoAuthority when they aren't one."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        key = serialization.load_der_private_key(key_der, password=None)
    except (ValueError, TypeError) as error:
        raise NoAuthority(f"the stored CA can't be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise NoAuthority("the stored CA's key isn't an EC key")
    return Authority(certificate, key)


def serial_number() -> int:
    """Return 128 random bits, never zero: positive and at most 20 octets as RFC 5280 section 4.1.2.2 asks."""
    return secrets.randbits(128) or 1


def pem(der: bytes) -> bytes:
    """Return a DER certificate as one PEM block."""
    return ssl.DER_cert_to_PEM_cert(der).encode()


def _ceil(moment: datetime) -> datetime:
    """Round up to whole seconds, which is all that a certificate can say."""
    moment = moment.astimezone(UTC)
    return moment + timedelta(microseconds=-moment.microsecond % 1_000_000)
