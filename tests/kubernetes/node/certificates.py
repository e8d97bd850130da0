"""The cluster's authority, who its parts are, and how each finds the API server."""

from __future__ import annotations

import datetime
import ipaddress
import json

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests.kubernetes.node.place import ADDRESS, API, API_SERVICE, DOMAIN, NAME, Place

LIFE = datetime.timedelta(days=30)  # a node for trials may stand that long
# Who: common name and groups. Kubernetes' own roles know these names.
USERS = {
    "admin": ("admin", "system:masters"),
    "controllers": ("system:kube-controller-manager", None),
    "scheduler": ("system:kube-scheduler", None),
    "proxy": ("system:kube-proxy", None),
    "kubelet": (f"system:node:{NAME}", "system:nodes"),
    "dns": ("dns", "system:masters"),
}
SERVERS = {
    "apiserver": [
        "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{DOMAIN}",
        "127.0.0.1", ADDRESS, API_SERVICE,
    ],
    "kubelet": [NAME, ADDRESS],
}  # fmt: skip


def write(place: Place) -> None:
    """Write everything below the folder's pki/, unless it is there."""
    if place.kubeconfig("admin").exists():
        return
    place.certificate("ca").parent.mkdir(parents=True, exist_ok=True)
    authority = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cluster")])
    usage = x509.KeyUsage(False, False, False, False, False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False)  # fmt: skip # noqa: E501
    root = _builder(name, name, authority).add_extension(x509.BasicConstraints(True, None), True)
    root = root.add_extension(usage, True)
    _keep(place, "ca", authority, root.sign(authority, hashes.SHA256()))

    tokens = rsa.generate_private_key(public_exponent=65537, key_size=2048)  # service account tokens are RS256
    _keep_key(place, "tokens", tokens)
    public = tokens.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (place.folder / "pki" / "tokens.pub").write_bytes(public)

    for user in {**USERS, **SERVERS}:
        common, group = USERS.get(user, (user, None))
        own = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
        if group:
            attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
        wanted = _builder(x509.Name(attributes), name, own).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), False
        )
        if names := SERVERS.get(user):
            wanted = wanted.add_extension(x509.SubjectAlternativeName([_name(each) for each in names]), False)
        _keep(place, user, own, wanted.sign(authority, hashes.SHA256()))
    for user in USERS:
        place.kubeconfig(user).write_text(json.dumps(_kubeconfig(place, user), indent=1))


def _kubeconfig(place: Place, user: str) -> dict[str, object]:
    cluster = {"server": API, "certificate-authority": str(place.certificate("ca"))}
    credentials = {"client-certificate": str(place.certificate(user)), "client-key": str(place.key(user))}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "node", "cluster": cluster}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": "node", "context": {"cluster": "node", "user": user}}],
        "current-context": "node",
    }


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + LIFE)
    )


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _keep(place: Place, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    _keep_key(place, name, key)
    place.certificate(name).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _keep_key(place: Place, name: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    path = place.key(name)
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
