"""Clusters: one for each port of each service that a workload may call, and one for the application behind each port.

Between proxies requests travel as HTTP/2 over mutual TLS, whatever the applications speak; connections of other
protocols as they are, over mutual TLS too. Only where a service of a cluster may have pods without a proxy do requests
travel as the port's protocol says, because every endpoint must understand it; each endpoint without a proxy is then
marked (EDS), and the mark alone chooses plain text.
"""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import UInt32Value

from meshwright.api.envoy.config.cluster.v3.circuit_breaker_pb2 import CircuitBreakers
from meshwright.api.envoy.config.cluster.v3.cluster_pb2 import Cluster
from meshwright.api.envoy.config.cluster.v3.outlier_detection_pb2 import OutlierDetection
from meshwright.api.envoy.config.core.v3.address_pb2 import Address, BindConfig, SocketAddress
from meshwright.api.envoy.config.core.v3.config_source_pb2 import AggregatedConfigSource, ApiVersion, ConfigSource
from meshwright.api.envoy.config.core.v3.protocol_pb2 import (
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    KeepaliveSettings,
)
from meshwright.api.envoy.config.endpoint.v3.endpoint_components_pb2 import Endpoint, LbEndpoint, LocalityLbEndpoints
from meshwright.api.envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from meshwright.api.envoy.extensions.transport_sockets.raw_buffer.v3.raw_buffer_pb2 import RawBuffer
from meshwright.api.envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions
from meshwright.api.envoy.type.v3.percent_pb2 import Percent
from meshwright.manager.model.mesh import Ingress, Port, Protocol, Service, Workload
from meshwright.manager.xds import endpoint as endpoints
from meshwright.manager.xds import names, tls, wire

_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_MAX_REQUESTS = 4096  # in flight to one cluster; more are refused at once, so that a slow service can't fill the proxy


def outbound(service: Service, port: Port, accounts: Iterable[str], parameters: names.Parameters) -> Cluster:
    """Reach a service's port: endpoints by EDS, and only the identities of its workloads are accepted."""
    name = names.outbound(service, port)
    # A service without a selector is one of addresses that somebody wrote down: outside of the mesh, as a rule.
    mixed = service.clustered and (parameters.outbound_plaintext or not service.selector)
    http2 = port.protocol is Protocol.HTTP2 or (port.protocol is Protocol.HTTP1 and not mixed)
    spoken = tls.TCP if port.protocol is Protocol.OTHER else tls.HTTP2 if http2 else tls.HTTP1
    # Nobody has the ID that ends in "/sa/": a service without workloads accepts no certificate, instead of any.
    accepted = [parameters.spiffe_id(service.namespace, account) for account in accounts]
    cluster = Cluster(
        name=name,
        alt_stat_name=f"{service.host}:{port.number}",
        type=Cluster.EDS,
        eds_cluster_config=Cluster.EdsClusterConfig(
            service_name=name,
            eds_config=ConfigSource(ads=AggregatedConfigSource(), resource_api_version=ApiVersion.V3),
        ),
        connect_timeout=Duration(seconds=2),
        lb_policy=Cluster.LEAST_REQUEST,
        transport_socket=tls.client(
            accepted or [f"spiffe://{parameters.trust_domain}/ns/{service.namespace}/sa/"], alpn=spoken
        ),
        transport_socket_matches=[_plain_text()] if mixed else [],
        circuit_breakers=_limits(),
        outlier_detection=_leave_dead_endpoints(),
    )
    if port.protocol is not Protocol.OTHER:
        options = _http2(keepalive=True) if http2 else _http1()
        cluster.typed_extension_protocol_options[_HTTP].CopyFrom(wire.pack(options))
    return cluster


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
        circuit_breakers=_limits(),
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
        circuit_breakers=_limits(),
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
    options = Http2ProtocolOptions()
    if keepalive:  # finds a peer whose machine vanished without closing its connections
        options.connection_keepalive.CopyFrom(
            KeepaliveSettings(interval=Duration(seconds=30), timeout=Duration(seconds=5))
        )
    explicit = HttpProtocolOptions.ExplicitHttpConfig(http2_protocol_options=options)
    return HttpProtocolOptions(explicit_http_config=explicit)


def _limits() -> CircuitBreakers:
    threshold = CircuitBreakers.Thresholds(
        max_connections=UInt32Value(value=_MAX_REQUESTS),
        max_pending_requests=UInt32Value(value=_MAX_REQUESTS),
        max_requests=UInt32Value(value=_MAX_REQUESTS),
        # When an endpoint goes away, all that was in flight to it is tried elsewhere at once.
        retry_budget=CircuitBreakers.Thresholds.RetryBudget(
            budget_percent=Percent(value=100), min_retry_concurrency=UInt32Value(value=64)
        ),
    )
    return CircuitBreakers(thresholds=[threshold])


def _leave_dead_endpoints() -> OutlierDetection:
    """Leave out endpoints that can't be connected to, for seconds; answers of status 5xx are the application's."""
    return OutlierDetection(
        interval=Duration(seconds=1),
        base_ejection_time=Duration(seconds=2),
        max_ejection_percent=UInt32Value(value=50),
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=UInt32Value(value=3),
        enforcing_consecutive_5xx=UInt32Value(value=0),
        enforcing_consecutive_gateway_failure=UInt32Value(value=0),
        enforcing_success_rate=UInt32Value(value=0),
        enforcing_local_origin_success_rate=UInt32Value(value=0),
    )
