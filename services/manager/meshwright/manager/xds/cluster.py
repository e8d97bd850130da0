"""Clusters: one for each port of each service that a workload may call, and one for the application behind each port.

Between proxies requests travel as HTTP/2 over mutual TLS, whatever the applications speak; connections of other
protocols as they are, over mutual TLS too. Only where a service of a cluster may have pods without a proxy do requests
travel as the port's protocol says, because every endpoint must understand it; each endpoint without a proxy is then
marked (EDS), and the mark alone chooses plain text.
"""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from meshwright.api.envoy.config.cluster.v3.cluster_pb2 import Cluster
from meshwright.api.envoy.config.core.v3.address_pb2 import Address, BindConfig, SocketAddress
from meshwright.api.envoy.config.core.v3.config_source_pb2 import ApiVersion
from meshwright.api.envoy.config.core.v3.protocol_pb2 import (
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    KeepaliveSettings,
)
from meshwright.api.envoy.config.endpoint.v3.endpoint_components_pb2 import Endpoint, LbEndpoint, LocalityLbEndpoints
from meshwright.api.envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from meshwright.api.envoy.extensions.transport_sockets.raw_buffer.v3.raw_buffer_pb2 import RawBuffer
from meshwright.api.envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions
from meshwright.manager.model.mesh import Ingress, Port, Protocol, Workload
from meshwright.manager.model.traffic import Ejection, Limits, Settings, Subset, TlsMode
from meshwright.manager.xds import endpoint as endpoints
from meshwright.manager.xds import names, policy, tls, wire
from meshwright.manager.xds.quantity import duration
from meshwright.manager.xds.subject import Subject

_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_CONNECT_SECONDS = 2


def outbound(
    subject: Subject, port: Port, settings: Settings, parameters: names.Parameters, subset: Subset | None = None
) -> Cluster:
    """Reach a service's port, or a subset's: endpoints by EDS; only the identities of its workloads are accepted."""
    service = subject.service
    # A service without a selector is one of addresses that somebody wrote down: outside of the mesh, as a rule.
    mixed = service.clustered and (parameters.outbound_plaintext or not service.selector)
    own_tls = settings.tls is not None and settings.tls.mode is not TlsMode.MESH
    http2 = port.protocol is Protocol.HTTP2 or (port.protocol is Protocol.HTTP1 and not mixed and not own_tls)
    limits = settings.limits or Limits()
    if limits.http2 and port.protocol is Protocol.HTTP1:
        http2 = True
    name = names.outbound(service, port, subset.name if subset else "")
    cluster = Cluster(
        name=name,
        alt_stat_name=f"{service.host}:{port.number}" + (f":{subset.name}" if subset else ""),
        connect_timeout=duration(limits.connect_seconds or _CONNECT_SECONDS),
        circuit_breakers=policy.limits(limits),
        outlier_detection=policy.ejection(settings.ejection or Ejection()),
    )
    policy.balance(cluster, settings, headless=service.headless)
    policy.panic(cluster, settings.ejection or Ejection())
    if cluster.type == Cluster.EDS:
        cluster.eds_cluster_config.service_name = names.outbound(
            service, port, names.group(subset.labels) if subset else ""
        )
        cluster.eds_cluster_config.eds_config.ads.SetInParent()
        cluster.eds_cluster_config.eds_config.resource_api_version = ApiVersion.V3
    if limits.keep_alive is not None:
        cluster.upstream_connection_options.tcp_keepalive.CopyFrom(policy.keep_alive(limits.keep_alive))
    if settings.tls is not None and own_tls:
        spoken = tls.TCP if port.protocol is Protocol.OTHER else tls.HTTP2 if http2 else tls.HTTP1
        if (outside := tls.outside(settings.tls, () if port.protocol is Protocol.OTHER else spoken)) is not None:
            cluster.transport_socket.CopyFrom(outside)
    else:
        # Nobody has the ID that ends in "/sa/": a service without workloads accepts no certificate, instead of any.
        accepted = [parameters.spiffe_id(service.namespace, account) for account in subject.accounts]
        nobody = f"spiffe://{parameters.trust_domain}/ns/{service.namespace}/sa/"
        spoken = tls.TCP if port.protocol is Protocol.OTHER else tls.HTTP2 if http2 else tls.HTTP1
        cluster.transport_socket.CopyFrom(tls.client(accepted or [nobody], alpn=spoken))
        if mixed:
            cluster.transport_socket_matches.append(_plain_text())
    if port.protocol is not Protocol.OTHER:
        speak(cluster, limits, http2=http2)
    return cluster


def speak(cluster: Cluster, limits: Limits, *, http2: bool) -> None:
    """Say which HTTP a cluster's endpoints speak."""
    options = _http2(keepalive=True) if http2 else _http1()
    policy.connections(options, limits)
    cluster.typed_extension_protocol_options[_HTTP].CopyFrom(wire.pack(options))


def _plain_text() -> Cluster.TransportSocketMatch:
    match = Cluster.TransportSocketMatch(name=endpoints.PLAIN)
    match.match.update({endpoints.PLAIN: True})
    match.transport_socket.name = "envoy.transport_sockets.raw_buffer"
    match.transport_socket.typed_config.CopyFrom(wire.pack(RawBuffer()))
    return match


def inbound(workload: Workload, ingress: Ingress) -> Cluster:
    """Reach the application behind its own proxy, on its Unix socket or, where that redirects, on its own port."""
    name = names.inbound(ingress.number)
    if ingress.socket is None:
        address = Address(socket_address=SocketAddress(address=workload.address, port_value=ingress.number))
    else:
        address = tls.socket_address(ingress.socket)
    endpoint = LbEndpoint(endpoint=Endpoint(address=address))
    cluster = Cluster(
        name=name,
        type=Cluster.STATIC,
        load_assignment=ClusterLoadAssignment(
            cluster_name=name, endpoints=[LocalityLbEndpoints(lb_endpoints=[endpoint])]
        ),
        connect_timeout=Duration(seconds=1),
        circuit_breakers=policy.limits(Limits()),
    )
    if ingress.socket is None:
        cluster.upstream_bind_config.CopyFrom(from_inbound(workload.address))
    if ingress.protocol is not Protocol.OTHER:
        options = _http1() if ingress.protocol is Protocol.HTTP1 else _http2(keepalive=False)
        cluster.typed_extension_protocol_options[_HTTP].CopyFrom(wire.pack(options))
    return cluster


def original(name: str, source: BindConfig | None = None) -> Cluster:
    """Reach the address that a redirected connection was for."""
    return Cluster(
        name=name,
        type=Cluster.ORIGINAL_DST,
        lb_policy=Cluster.CLUSTER_PROVIDED,
        connect_timeout=Duration(seconds=5),
        upstream_bind_config=source,
        circuit_breakers=policy.limits(Limits()),
    )


def nowhere(name: str) -> Cluster:
    """Reach nothing: connections that may go no further end here."""
    return Cluster(name=name, type=Cluster.STATIC, connect_timeout=Duration(seconds=1))


def from_inbound(address: str) -> BindConfig:
    """Dial the pod's own `address` from the one that redirection lets through: it is from the mesh already."""
    source = "::6" if ":" in address else "127.0.0.6"
    return BindConfig(source_address=SocketAddress(address=source, port_value=0))


def _http1() -> HttpProtocolOptions:
    explicit = HttpProtocolOptions.ExplicitHttpConfig(http_protocol_options=Http1ProtocolOptions())
    return HttpProtocolOptions(explicit_http_config=explicit)


def _http2(*, keepalive: bool) -> HttpProtocolOptions:
    options = Http2ProtocolOptions(allow_connect=True)
    if keepalive:  # finds a peer whose machine vanished without closing its connections
        options.connection_keepalive.CopyFrom(
            KeepaliveSettings(interval=Duration(seconds=30), timeout=Duration(seconds=5))
        )
    explicit = HttpProtocolOptions.ExplicitHttpConfig(http2_protocol_options=options)
    return HttpProtocolOptions(explicit_http_config=explicit)
