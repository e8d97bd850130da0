"""Listeners of a proxy to which the kernel sends its workload's TCP connections (an injected pod's).

Outbound, one port takes all connections and hands each to the listener of the address that it was for: a service's
cluster address and port. Those listeners are the same for all proxies and serialised once. Inbound, one port takes all
connections too, with a filter chain for each port that a service has on this workload.

One decision to know: what is called decides who answers, not the Host header: a service is found by the address that
the application connected to, as it is without a mesh. So any header goes, and none leads elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value

from meshwright.api.envoy.config.core.v3.address_pb2 import Address, SocketAddress
from meshwright.api.envoy.config.core.v3.base_pb2 import TrafficDirection, TransportSocket
from meshwright.api.envoy.config.listener.v3.listener_components_pb2 import (
    Filter,
    FilterChain,
    FilterChainMatch,
    ListenerFilter,
)
from meshwright.api.envoy.config.listener.v3.listener_pb2 import AdditionalAddress, Listener
from meshwright.manager.model.access import PeerTls
from meshwright.manager.model.mesh import Ingress, Protocol, Service, Workload
from meshwright.manager.xds import connection, filters, listener, names, rbac, tls, wire
from meshwright.manager.xds.action import Place

_FIRST_BYTES_SECONDS = 5  # in which a caller must have shown whether it speaks TLS


def captured(workload: Workload, services: Iterable[Service]) -> tuple[Ingress, ...]:
    """Return the ports of the workload that services lead to; of two protocols for one port the first service's."""
    found: dict[int, Ingress] = {}
    for service in services:
        for port in service.ports:
            number = workload.target(port)
            if number is not None:
                found.setdefault(number, Ingress(number, None, None, port.protocol))
    return tuple(found[number] for number in sorted(found))


def outbound(parameters: names.Parameters) -> Listener:
    """Take all connections that the workload opens; those to no service go on as they are, or nowhere."""
    unknown = names.PASS_THROUGH if parameters.outbound_unknown else names.NOWHERE
    return Listener(
        name="outbound",
        address=_address("0.0.0.0", names.OUTBOUND_PORT),
        additional_addresses=[_sixth(names.OUTBOUND_PORT)],
        use_original_dst=BoolValue(value=True),
        traffic_direction=TrafficDirection.OUTBOUND,
        per_connection_buffer_limit_bytes=listener.BUFFER,
        filter_chains=[_dead_end(names.OUTBOUND_PORT)],
        default_filter_chain=FilterChain(filters=[connection.to("outbound-unknown", unknown)]),
    )


def service(place: Place, parameters: names.Parameters, *, http: bool) -> Listener:
    """Take the connections to a service's port that `outbound` hands on: as requests if they are `http`, or bytes."""
    called, port = place.subject.service, place.port
    name = names.outbound(called, port)
    first, *others = [_address(address, port.number) for address in called.cluster_ips]
    made = Listener(
        name=name,
        address=first,
        additional_addresses=[AdditionalAddress(address=address) for address in others],
        bind_to_port=BoolValue(value=False),
        traffic_direction=TrafficDirection.OUTBOUND,
        per_connection_buffer_limit_bytes=listener.BUFFER,
    )
    if not http:
        made.filter_chains.extend(connection.chains(place))
        if any(chain.filter_chain_match.server_names for chain in made.filter_chains):
            made.listener_filters.append(listener.tls_inspector())
            made.listener_filters_timeout.CopyFrom(Duration(seconds=_FIRST_BYTES_SECONDS))
            made.continue_on_listener_filters_timeout = True
    else:
        # The proxy's environment says whose spans these are, so that all proxies share this listener's bytes.
        manager = filters.connection_manager("outbound", name, None, parameters.sampling_percent)
        manager.http_filters.extend(filters.routed())
        made.filter_chains.append(FilterChain(filters=[listener.http(manager)]))
    return made


def inbound(
    workload: Workload, ports: Iterable[tuple[Ingress, str]], parameters: names.Parameters, guard: listener.Guard
) -> Listener:
    """Take all connections to the workload: `ports` with the names of their routes; others have no way in."""
    served_ports = list(ports)
    default = PeerTls.PERMISSIVE if parameters.inbound_plaintext else PeerTls.STRICT
    modes = {ingress.number: guard.governed.mode(ingress.number, default) for ingress, _ in served_ports}
    made = Listener(
        name="inbound",
        address=_address("0.0.0.0", names.INBOUND_PORT),
        additional_addresses=[_sixth(names.INBOUND_PORT)],
        traffic_direction=TrafficDirection.INBOUND,
        per_connection_buffer_limit_bytes=listener.BUFFER,
        listener_filters=[
            ListenerFilter(
                name="envoy.filters.listener.original_dst",
                typed_config=wire.empty("envoy.extensions.filters.listener.original_dst.v3.OriginalDst"),
            ),
            listener.tls_inspector(),
        ],
        listener_filters_timeout=Duration(seconds=_FIRST_BYTES_SECONDS),
        # With plain text let in, a protocol in which the server speaks first shows nothing to look at.
        continue_on_listener_filters_timeout=any(mode.takes_plain for mode in modes.values()),
        filter_chains=[_dead_end(names.INBOUND_PORT)],
    )
    for ingress, routes in served_ports:
        served = _serve(workload, ingress, routes, parameters, guard)
        alpn = tls.TCP if ingress.protocol is Protocol.OTHER else (*tls.HTTP2, "http/1.1")
        mode = modes[ingress.number]
        if mode.takes_tls:
            made.filter_chains.append(_chain(ingress.number, "tls", served, tls.server(parameters.trust_domain, alpn)))
        if mode.takes_plain:
            made.filter_chains.append(_chain(ingress.number, "raw_buffer", served))
    # Rules of access are for all that the workload serves; for ports that no service has nothing could be asked.
    guarded = parameters.closed or any(not each.dry_run for each in guard.governed.access)
    if parameters.inbound_plaintext and not guarded:
        rest = FilterChain(filters=[connection.to("inbound-unknown", names.INBOUND_PASS_THROUGH)])
        made.default_filter_chain.CopyFrom(rest)
    return made


def _serve(
    workload: Workload, ingress: Ingress, routes: str, parameters: names.Parameters, guard: listener.Guard
) -> list[Filter]:
    if ingress.protocol is Protocol.OTHER:
        return [
            *rbac.network(guard.governed, ingress.number, closed=parameters.closed),
            connection.to(f"inbound_{ingress.number}", names.inbound(ingress.number)),
        ]
    return [listener.http(listener.inbound_manager(workload, ingress, routes, parameters, guard))]


def _chain(number: int, transport: str, served: list[Filter], security: TransportSocket | None = None) -> FilterChain:
    return FilterChain(
        name=f"{number} {transport}",
        filter_chain_match=FilterChainMatch(destination_port=UInt32Value(value=number), transport_protocol=transport),
        filters=served,
        transport_socket=security,
        transport_socket_connect_timeout=Duration(seconds=10) if security else None,
    )


def _dead_end(number: int) -> FilterChain:
    """Take whoever dials the proxy's own port: it was redirected from nowhere, and would come back for ever."""
    return FilterChain(
        name="own port",
        filter_chain_match=FilterChainMatch(destination_port=UInt32Value(value=number)),
        filters=[connection.to("nowhere", names.NOWHERE)],
    )


def _sixth(number: int) -> AdditionalAddress:
    """IPv6 beside IPv4: what is redirected arrives at the pod's address of its own family."""
    return AdditionalAddress(address=_address("::", number))


def _address(host: str, number: int) -> Address:
    return Address(socket_address=SocketAddress(address=host, port_value=number))
