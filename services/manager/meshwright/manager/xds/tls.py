"""Mutual TLS of proxies: certificates and authorities by SDS from the node's agent, peers by exact SPIFFE ID.

One decision to know: resources hold the names of secrets only. Keys are made on the node and reach the proxy from its
agent, so the manager never sees one.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshwright.api.envoy.config.core.v3.address_pb2 import Address, Pipe
from meshwright.api.envoy.config.core.v3.base_pb2 import DataSource, TransportSocket
from meshwright.api.envoy.config.core.v3.config_source_pb2 import ApiConfigSource, ApiVersion, ConfigSource
from meshwright.api.envoy.config.core.v3.grpc_service_pb2 import GrpcService
from meshwright.api.envoy.extensions.transport_sockets.tls.v3.common_pb2 import (
    CertificateValidationContext,
    SubjectAltNameMatcher,
    TlsParameters,
)
from meshwright.api.envoy.extensions.transport_sockets.tls.v3.secret_pb2 import SdsSecretConfig
from meshwright.api.envoy.extensions.transport_sockets.tls.v3.tls_pb2 import (
    CommonTlsContext,
    DownstreamTlsContext,
    UpstreamTlsContext,
)
from meshwright.api.envoy.type.matcher.v3.string_pb2 import StringMatcher
from meshwright.manager.model.traffic import Tls, TlsMode
from meshwright.manager.xds import platform, wire

HTTP1, HTTP2 = ("http/1.1",), ("h2",)
TCP = ("meshwright",)  # what travels between proxies isn't HTTP: neither takes it for that

_URI = SubjectAltNameMatcher.SanType.URI
_PUBLIC_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"  # where distributions keep those of the public internet


def server(trust_domain: str, alpn: Iterable[str] = (*HTTP2, *HTTP1)) -> TransportSocket:
    """Serve mutual TLS to any identity of the trust domain; what it may do is policy's to say."""
    context = DownstreamTlsContext(
        common_tls_context=_common(StringMatcher(prefix=f"spiffe://{trust_domain}/"), alpn=alpn)
    )
    context.require_client_certificate.value = True
    return TransportSocket(name="envoy.transport_sockets.tls", typed_config=wire.pack(context))


def client(spiffe_ids: Iterable[str], alpn: Iterable[str] = HTTP2) -> TransportSocket:
    """Dial mutual TLS and accept exactly these identities; HTTP/2 unless `alpn` says otherwise."""
    matchers = [StringMatcher(exact=spiffe_id) for spiffe_id in spiffe_ids]
    context = UpstreamTlsContext(common_tls_context=_common(*matchers, alpn=alpn))
    return TransportSocket(name="envoy.transport_sockets.tls", typed_config=wire.pack(context))


def outside(wanted: Tls, alpn: Iterable[str]) -> TransportSocket | None:
    """Dial what isn't of the mesh, with the proxy's own files; None: in plain text."""
    if wanted.mode is TlsMode.DISABLED:
        return None
    context = UpstreamTlsContext(sni=wanted.server_name, common_tls_context=CommonTlsContext(alpn_protocols=alpn))
    if wanted.mode is TlsMode.MUTUAL and wanted.certificate:
        context.common_tls_context.tls_certificates.add(
            certificate_chain=DataSource(filename=wanted.certificate), private_key=DataSource(filename=wanted.key)
        )
    if not wanted.unverified:
        validation = context.common_tls_context.validation_context
        validation.trusted_ca.filename = wanted.authorities or _PUBLIC_AUTHORITIES
        names = wanted.names or ((wanted.server_name,) if wanted.server_name else ())
        for name in names:
            kind = _URI if name.startswith("spiffe://") else SubjectAltNameMatcher.SanType.DNS
            validation.match_typed_subject_alt_names.add(san_type=kind, matcher=StringMatcher(exact=name))
    return TransportSocket(name="envoy.transport_sockets.tls", typed_config=wire.pack(context))


def _common(*peers: StringMatcher, alpn: Iterable[str]) -> CommonTlsContext:
    return CommonTlsContext(
        tls_params=TlsParameters(
            tls_minimum_protocol_version=TlsParameters.TLSv1_3, tls_maximum_protocol_version=TlsParameters.TLSv1_3
        ),
        tls_certificate_sds_secret_configs=[_secret(platform.CERTIFICATE_SECRET)],
        combined_validation_context=CommonTlsContext.CombinedCertificateValidationContext(
            default_validation_context=CertificateValidationContext(
                match_typed_subject_alt_names=[SubjectAltNameMatcher(san_type=_URI, matcher=peer) for peer in peers]
            ),
            validation_context_sds_secret_config=_secret(platform.ROOTS_SECRET),
        ),
        alpn_protocols=alpn,
    )


def _secret(name: str) -> SdsSecretConfig:
    service = GrpcService(envoy_grpc=GrpcService.EnvoyGrpc(cluster_name=platform.AGENT))
    return SdsSecretConfig(
        name=name,
        sds_config=ConfigSource(
            resource_api_version=ApiVersion.V3,
            api_config_source=ApiConfigSource(
                api_type=ApiConfigSource.GRPC,
                transport_api_version=ApiVersion.V3,
                set_node_on_first_message_only=True,
                grpc_services=[service],
            ),
        ),
    )


def socket_address(path: str, mode: int = 0) -> Address:
    """Return the address of a Unix socket; `mode` is set on one that is listened on."""
    return Address(pipe=Pipe(path=path, mode=mode))
