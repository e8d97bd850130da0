"""networking.istio.io/v1 Gateway: ports of standalone proxies, the hosts they serve, and their TLS."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from meshwright.manager.istio.http_route import ShortText
from meshwright.manager.istio.names import Port
from meshwright.manager.istio.service_entry import Protocol
from meshwright.manager.istio.traffic_policy import Path
from meshwright.manager.model.document import Document, FieldError, Labels, Strict, ip_address

_HOST = re.compile(
    r"((\*|\.|[a-z0-9]([-a-z0-9]*[a-z0-9])?)/)?(\*|(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)"
)
_SPKI = re.compile(r"[A-Za-z0-9+/]{43}=")
_HASH = re.compile(r"[0-9A-Fa-f]{64}|([0-9A-Fa-f]{2}:){31}[0-9A-Fa-f]{2}")
_CIPHER = re.compile(r"[A-Z0-9-]+")
Version = Literal["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"]


def _host(text: str) -> str:
    if len(text) > 320 or not _HOST.fullmatch(text):
        raise ValueError(
            f"{text!r} isn't a host: write a DNS name, *.example.com or *, with NAMESPACE/ before it or not"
        )
    return text


def _spki(text: str) -> str:
    if not _SPKI.fullmatch(text):
        raise ValueError(f"{text!r} isn't base64 of a SHA-256: it has 44 characters")
    return text


def _hash(text: str) -> str:
    if not _HASH.fullmatch(text):
        raise ValueError(f"{text!r} isn't a SHA-256 in hex: it has 64 digits")
    return text.replace(":", "").lower()


def _cipher(text: str) -> str:
    if not _CIPHER.fullmatch(text):
        raise ValueError(
            f"{text!r} isn't a cipher suite: write one as OpenSSL does, such as ECDHE-RSA-AES128-GCM-SHA256"
        )
    return text


class ServerPort(Strict):
    """A port of the proxies."""

    number: Port
    protocol: Protocol
    name: ShortText
    target_port: Port | None = None


class TlsCertificate(Strict):
    """Files of the proxies."""

    server_certificate: Path
    private_key: Path
    ca_certificates: Path | None = None


class ServerTls(Strict):
    """TLS of a server. Certificates come by SDS (`credential_name`) or from files of the proxies."""

    https_redirect: bool = False
    mode: Literal["PASSTHROUGH", "SIMPLE", "MUTUAL", "AUTO_PASSTHROUGH", "ISTIO_MUTUAL", "OPTIONAL_MUTUAL"] = (
        "PASSTHROUGH"
    )
    server_certificate: Path | None = None
    private_key: Path | None = None
    ca_certificates: Path | None = None
    credential_name: ShortText | None = None
    credential_names: Annotated[list[ShortText], Field(max_length=2)] = Field(default_factory=list)
    ca_cert_credential_name: ShortText | None = None
    tls_certificates: Annotated[list[TlsCertificate], Field(max_length=2)] = Field(default_factory=list)
    subject_alt_names: Annotated[list[ShortText], Field(max_length=64)] = Field(default_factory=list)
    verify_certificate_spki: Annotated[list[Annotated[str, AfterValidator(_spki)]], Field(max_length=64)] = Field(
        default_factory=list
    )
    verify_certificate_hash: Annotated[list[Annotated[str, AfterValidator(_hash)]], Field(max_length=64)] = Field(
        default_factory=list
    )
    min_protocol_version: Version = "TLS_AUTO"
    max_protocol_version: Version = "TLS_AUTO"
    cipher_suites: Annotated[list[Annotated[str, AfterValidator(_cipher)]], Field(max_length=64)] = Field(
        default_factory=list
    )

    @property
    def ends(self) -> bool:
        """Whether TLS is ended at the gateway with a certificate of one's own."""
        return self.mode in ("SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL")

    @model_validator(mode="after")
    def _of_its_mode(self) -> Self:
        if self.mode == "AUTO_PASSTHROUGH":
            raise ValueError(
                "mode AUTO_PASSTHROUGH is for several clusters of one mesh, which this is not: write PASSTHROUGH"
            )
        sources = {
            "credentialName": self.credential_name,
            "credentialNames": self.credential_names,
            "tlsCertificates": self.tls_certificates,
            "serverCertificate": self.server_certificate or self.private_key,
        }
        said = [name for name, value in sources.items() if value]
        if self.ends and len(said) != 1:
            have = f"has {' and '.join(said)}" if said else f"mode {self.mode} shows a certificate and none is named"
            raise ValueError(
                f"{have}: write one of credentialName, credentialNames, tlsCertificates and serverCertificate"
            )
        if not self.ends and said:
            raise ValueError(f"mode {self.mode} shows no certificate of one's own: remove {said[0]}")
        if (self.server_certificate is None) != (self.private_key is None):
            raise ValueError("serverCertificate and privateKey go together: write both")
        secrets = self.credential_name or self.credential_names or self.ca_cert_credential_name
        files = (self.ca_certificates, *(certificate.ca_certificates for certificate in self.tls_certificates))
        known = bool(secrets) or any(files)
        if self.mode in ("MUTUAL", "OPTIONAL_MUTUAL") and not known:
            raise ValueError(f"mode {self.mode} believes clients: write caCertificates, or a credential that has them")
        versions = ("TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3")
        low, high = self.min_protocol_version, self.max_protocol_version
        if low in versions and high in versions and versions.index(low) > versions.index(high):
            raise ValueError(f"minProtocolVersion {low} is above maxProtocolVersion {high}: swap them")
        return self


class Server(Strict):
    """One port for some hosts."""

    port: ServerPort
    bind: Annotated[str, AfterValidator(ip_address)] | None = None
    hosts: Annotated[list[Annotated[str, AfterValidator(_host)]], Field(min_length=1, max_length=256)]
    default_endpoint: str | None = None
    name: ShortText | None = None
    tls: ServerTls | None = None

    @model_validator(mode="after")
    def _tls(self) -> Self:
        secured = self.port.protocol in ("https", "tls")
        if secured and self.tls is None:
            raise ValueError(f"protocol {self.port.protocol.upper()} needs tls: write its mode and certificate")
        if self.tls is not None and not secured and (self.tls.ends or self.tls.mode == "ISTIO_MUTUAL"):
            raise ValueError(f"protocol {self.port.protocol.upper()} is plain text: write HTTPS or TLS, or remove tls")
        if self.tls is not None and self.tls.https_redirect and secured:
            raise ValueError("httpsRedirect is for plain HTTP: put it on the HTTP server of the same hosts")
        if self.default_endpoint is not None:
            raise ValueError("defaultEndpoint isn't known to this mesh: lead requests by a VirtualService")
        if self.port.target_port is not None:
            raise ValueError("port.targetPort isn't known to this mesh: the Service of the proxies maps ports")
        return self


class GatewaySpec(Strict):
    """Which proxies (by labels, of every namespace), and what they serve; no selector means all gateways' proxies."""

    selector: Labels = Field(default_factory=dict)
    servers: Annotated[list[Server], Field(min_length=1, max_length=64)]


class Gateway(Document):
    """Ports of standalone proxies."""

    spec: GatewaySpec

    @model_validator(mode="after")
    def _ports(self) -> Self:
        protocols: dict[int, bool] = {}
        for number, server in enumerate(self.spec.servers):
            plain = server.port.protocol not in ("https", "tls")
            if protocols.setdefault(server.port.number, plain) is not plain:
                raise FieldError(
                    f"spec.servers[{number}].port",
                    f"port {server.port.number} has plain text and TLS: give each a port of its own",
                )
        names = [server.name for server in self.spec.servers if server.name]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise FieldError("spec.servers", f"two servers have the name {twice[0]}: give each its own")
        return self
