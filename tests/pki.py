"""Certificates for tests: a CA that issues SPIFFE identities at once, with any name and lifetime."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshwright.core.identity import X509Identity, part_dns, part_id, workload_id

TRUST_DOMAIN = "mesh.local"


class Pki:
    """One certificate authority; two of them don't trust each other."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
        self.certificate = (
            self._builder(name, name, self.key.public_key(), timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()),
                critical=False,
            )
            .sign(self.key, hashes.SHA256())
        )
        self.bundle_pem = self.certificate.public_bytes(serialization.Encoding.PEM)

    def identity(
        self, spiffe_id: str, *, dns: Sequence[str] = (), lifetime: timedelta = timedelta(hours=1)
    ) -> X509Identity:
        """Issue an identity: EC P-256, the SPIFFE ID as URI name, `dns` beside it."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.UniformResourceIdentifier(spiffe_id), *map(x509.DNSName, dns)]
        usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        certificate = (
            self._builder(x509.Name([]), self.certificate.subject, key.public_key(), lifetime)
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usages, critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
            .sign(self.key, hashes.SHA256())
        )
        return X509Identity(
            spiffe_id=spiffe_id,
            cert_chain_pem=certificate.public_bytes(serialization.Encoding.PEM),
            key_pem=key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
            bundle_pem=self.bundle_pem,
            not_after=certificate.not_valid_after_utc,
        )

    def part(self, part: str, *, trust_domain: str = TRUST_DOMAIN) -> X509Identity:
        """Issue the identity of one of the platform's parts, DNS name included."""
        return self.identity(part_id(trust_domain, part), dns=[part_dns(part)])

    def workload(self, service_account: str, namespace: str = "default") -> X509Identity:
        """Issue the identity of a workload."""
        return self.identity(workload_id(TRUST_DOMAIN, namespace, service_account))

    @staticmethod
    def write(svid: X509Identity, folder: Path) -> Path:
        """Write cert.pem, key.pem and ca.pem into `folder` and return it."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cert.pem").write_bytes(svid.cert_chain_pem)
        (folder / "key.pem").write_bytes(svid.key_pem)
        (folder / "ca.pem").write_bytes(svid.bundle_pem)
        return folder

    @staticmethod
    def _builder(
        subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lifetime: timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(seconds=10))
            .not_valid_after(now + lifetime)
        )
