"""Listeners: the port on which the mesh reaches a workload, and the Unix socket on which that reaches the mesh."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import UInt32Value

from meshwright.api.envoy.config.core.v3.address_pb2 import Address, SocketAddress
from meshwright.api.envoy.config.core.v3.base_pb2 import TrafficDirection
from meshwright.api.envoy.config.listener.v3.listener_components_pb2 import Filter, FilterChain, ListenerFilter
from meshwright.api.envoy.config.listener.v3.listener_pb2 import Listener
from meshwright.api.envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from meshwright.manager.model.access import PeerTls
from meshwright.manager.model.governed import FREE, Governed
from meshwright.manager.model.mesh import Egress, Ingress, Workload
from meshwright.manager.xds import filters, names, rbac, retry, tls, tokens, wire

BUFFER = UInt32Value(value=1 << 20)  # bytes that a connection may have waiting
_OWNER_ONLY = 0o600  # whoever may write to the socket speaks with the workload's identity


@dataclass(frozen=True, slots=True)
class Guard:
    """What stands between a workload and its callers: rules of access, and mixer's answer while no mixer gives one."""

    governed: Governed = FREE
    allow_on_outage: bool = False


def inbound_manager(
    workload: Workload, ingress: Ingress, routes: str, parameters: names.Parameters, guard: Guard
) -> HttpConnectionManager:
    """Return what is done with a request from the mesh: access, policy, report, and on to the application."""
    manager = filters.connection_manager(
        f"inbound_{ingress.number}", routes, workload.name, parameters.sampling_percent
    )
    manager.forward_client_cert_details = HttpConnectionManager.SANITIZE_SET
    manager.set_current_client_cert_details.uri = True
    manager.http_filters.extend(tokens.http(guard.governed))
    manager.http_filters.extend(rbac.http(guard.governed, ingress.number, closed=parameters.closed))
    manager.http_filters.extend([filters.policy(allow_on_outage=guard.allow_on_outage), filters.router()])
    manager.access_log.append(filters.report("inbound"))
    manager.local_reply_config.CopyFrom(retry.mark_failures())
    return manager


def inbound(workload: Workload, ingress: Ingress, routes: str, parameters: names.Parameters, guard: Guard) -> Listener:
    """Serve a workload's port to the mesh: mutual TLS, access, policy, report, and the application behind."""
    manager = inbound_manager(workload, ingress, routes, parameters, guard)
    address = SocketAddress(address=ingress.bind or workload.address, port_value=ingress.number)
    mode = guard.governed.mode(ingress.number, PeerTls.STRICT)
    secure = FilterChain(
        filters=[http(manager)],
        transport_socket=tls.server(parameters.trust_domain),
        transport_socket_connect_timeout=Duration(seconds=10),
    )
    plain = FilterChain(filters=[http(manager)])
    made = Listener(
        name=f"inbound|{ingress.number}",
        address=Address(socket_address=address),
        traffic_direction=TrafficDirection.INBOUND,
        per_connection_buffer_limit_bytes=BUFFER,
        filter_chains=[plain if mode is PeerTls.DISABLED else secure],
    )
    if mode is PeerTls.PERMISSIVE:
        made.listener_filters.append(tls_inspector())
        secure.filter_chain_match.transport_protocol = "tls"
        plain.filter_chain_match.transport_protocol = "raw_buffer"
        del made.filter_chains[:]
        made.filter_chains.extend([secure, plain])
    return made


def tls_inspector() -> ListenerFilter:
    """Look whether a connection begins with TLS, so that filter chains can be chosen by it."""
    return ListenerFilter(
        name="envoy.filters.listener.tls_inspector",
        typed_config=wire.empty("envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"),
    )


def outbound(workload: Workload, egress: Egress, routes: str, parameters: names.Parameters) -> Listener:
    """Serve the mesh to a workload on a Unix socket: plain HTTP inside, mutual TLS from there on."""
    manager = filters.connection_manager("outbound", routes, workload.name, parameters.sampling_percent)
    manager.http_filters.extend(filters.routed())
    return Listener(
        name=f"outbound|{egress.socket}",
        address=tls.socket_address(egress.socket, _OWNER_ONLY),
        traffic_direction=TrafficDirection.OUTBOUND,
        per_connection_buffer_limit_bytes=BUFFER,
        filter_chains=[FilterChain(filters=[http(manager)])],
    )


def http(manager: HttpConnectionManager) -> Filter:
    """Return the filter that does what `manager` says."""
    return Filter(name="envoy.filters.network.http_connection_manager", typed_config=wire.pack(manager))
