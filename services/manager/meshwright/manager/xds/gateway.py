"""Standalone proxies at the mesh's border: listeners for the servers of the gateways that select them, and routes.

One decision to know: keys never pass through the manager. A certificate that a Gateway names (`credentialName`) is read
by the proxy from a folder of that name under `CREDENTIALS`, laid out as Kubernetes mounts a Secret of type TLS:
``tls.crt``, ``tls.key`` and, for clients' authorities, ``ca.crt``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from google.protobuf.duration_pb2 import Duration

from meshwright.api.envoy.config.core.v3.address_pb2 import Address, SocketAddress
from meshwright.api.envoy.config.core.v3.base_pb2 import DataSource, TrafficDirection, TransportSocket
from meshwright.api.envoy.config.listener.v3.listener_components_pb2 import (
    Filter,
    FilterChain,
    FilterChainMatch,
    ListenerFilter,
)
from meshwright.api.envoy.config.listener.v3.listener_pb2 import Listener
from meshwright.api.envoy.config.route.v3.route_components_pb2 import Route, RouteMatch, VirtualHost
from meshwright.api.envoy.config.route.v3.route_pb2 import RouteConfiguration
from meshwright.api.envoy.extensions.transport_sockets.tls.v3.common_pb2 import (
    SubjectAltNameMatcher,
    TlsParameters,
)
from meshwright.api.envoy.extensions.transport_sockets.tls.v3.tls_pb2 import CommonTlsContext, DownstreamTlsContext
from meshwright.api.envoy.type.matcher.v3.string_pb2 import StringMatcher
from meshwright.manager.model.claims import Claim, Spoken
from meshwright.manager.model.domain import service_of
from meshwright.manager.model.gateway import Certificate, Gateway, Server, ServerTls, Termination
from meshwright.manager.model.mesh import Known, Mesh, Port, Protocol, Proxy, Service, Workload
from meshwright.manager.model.routing import Routes
from meshwright.manager.xds import action, connection, filters, listener, names, retry, tls, wire
from meshwright.manager.xds.action import Place
from meshwright.manager.xds.caller import Caller
from meshwright.manager.xds.subject import Subject

CREDENTIALS = "/etc/meshwright/gateway"
_UNKNOWN = "no route of this gateway has this host name\n"
_VERSIONS = {
    "": TlsParameters.TLS_AUTO,
    "1.0": TlsParameters.TLSv1_0,
    "1.1": TlsParameters.TLSv1_1,
    "1.2": TlsParameters.TLSv1_2,
    "1.3": TlsParameters.TLSv1_3,
}


@dataclass(frozen=True, slots=True)
class GatewaySource:
    """All that a gateway's proxy has is made from this. `bound` are the routes of its gateways, and who says them."""

    workload: Workload
    gateways: tuple[Gateway, ...]
    bound: tuple[tuple[str, Routes], ...]
    known: Mapping[str, Known]


@dataclass(frozen=True, slots=True)
class Door:
    """A server, and the gateway that has it."""

    gateway: Gateway
    server: Server

    def takes(self, speaker: str, host: str) -> str | None:
        """Return for which domain a namespace's routes of a host hold here; None: they don't."""
        for where, pattern in self.server.hosts:
            if where in ("*", speaker) and (domain := _narrower(pattern, host)):
                return domain
        return None


def gateways(mesh: Mesh) -> tuple[Gateway, ...]:
    """Return the gateways of all namespaces."""
    return tuple(gateway for _, area in sorted(mesh.areas.items()) for gateway in area.meaning.gateways)


def source(mesh: Mesh, all_gateways: Iterable[Gateway], workload: Workload) -> GatewaySource | None:
    """Collect what a workload's proxy serves as a gateway; None: no gateway selects it."""
    if workload.proxy is Proxy.REDIRECT:
        return None  # its pod's connections are taken by the kernel, for the application in it
    selecting = [gateway for gateway in all_gateways if gateway.selector and _selects(gateway, workload)]
    if not selecting:
        return None
    selecting += [gateway for gateway in all_gateways if not gateway.selector]
    references = {gateway.reference for gateway in selecting}
    bound = tuple(
        (namespace, routes)
        for namespace, each in sorted(mesh.areas.items())
        for routes in each.meaning.routes
        if not references.isdisjoint(routes.gateways)
    )
    hosts = {destination.host for _, routes in bound for destination in routes.destinations}
    found = {host: _find(mesh, host) for host in sorted(hosts)}
    return GatewaySource(
        workload, tuple(selecting), bound, {host: known for host, known in found.items() if known is not None}
    )


def _selects(gateway: Gateway, workload: Workload) -> bool:
    return all(workload.labels.get(key) == value for key, value in gateway.selector)


def _find(mesh: Mesh, host: str) -> Known | None:
    found = service_of(host)
    area = mesh.areas.get(found[0]) if found else None
    if area is None or found is None or found[1] not in area.services:
        return None
    spoken = area.said_of(found[1])
    return Known(area.services[found[1]], Spoken(spoken.owner, (), spoken.advice))


def translate(origin: GatewaySource, parameters: names.Parameters) -> tuple[list[Listener], list[RouteConfiguration]]:
    """Translate listeners, one for each address and port, and the route configurations that they name."""
    doors: dict[tuple[str, int], list[Door]] = {}
    for gateway in origin.gateways:
        for server in gateway.servers:
            doors.setdefault((server.bind, server.number), []).append(Door(gateway, server))
    listeners, routes = [], []
    for (bind, number), found in sorted(doors.items()):
        translation = _Listener(origin, parameters, bind, number, found)
        made = translation.listener()
        if made.filter_chains:
            listeners.append(made)
            routes += translation.routes
    return listeners, routes


class _Listener:
    """One address and port."""

    def __init__(
        self, origin: GatewaySource, parameters: names.Parameters, bind: str, number: int, doors: list[Door]
    ) -> None:
        self._origin, self._parameters, self._bind, self._number, self._doors = origin, parameters, bind, number, doors
        self._name = f"gateway|{number}|{bind}"
        self._who = Caller(origin.workload.namespace)
        self.routes: list[RouteConfiguration] = []

    def listener(self) -> Listener:
        address = SocketAddress(address=self._bind or self._origin.workload.address, port_value=self._number)
        made = Listener(
            name=self._name,
            address=Address(socket_address=address),
            traffic_direction=TrafficDirection.OUTBOUND,
            per_connection_buffer_limit_bytes=listener.BUFFER,
        )
        plain = [door for door in self._doors if _is_plain_http(door.server)]
        if plain:
            made.filter_chains.append(FilterChain(filters=[self._http(plain, self._name)]))
            return made  # requests and bytes can't be told apart on one port
        seen: set[bytes] = set()
        for index, door in enumerate(self._doors):
            for chain in self._chains(index, door):
                key = chain.filter_chain_match.SerializeToString(deterministic=True)
                if key not in seen:  # Envoy takes no two chains for the same; the first gateway by name was to have it
                    seen.add(key)
                    made.filter_chains.append(chain)
        if any(chain.filter_chain_match.server_names for chain in made.filter_chains):
            inspector = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
            made.listener_filters.append(
                ListenerFilter(name="envoy.filters.listener.tls_inspector", typed_config=wire.empty(inspector))
            )
            made.listener_filters_timeout.CopyFrom(Duration(seconds=5))
        return made

    def _chains(self, index: int, door: Door) -> Iterator[FilterChain]:
        mode = door.server.tls.mode
        if mode in (Termination.PASS, Termination.NONE) or door.server.protocol == "tls":
            security = None if mode in (Termination.PASS, Termination.NONE) else self._security(door.server, ())
            for chain in self._connections(door):
                if security is not None:
                    chain.transport_socket.CopyFrom(security)
                    _server_names(chain.filter_chain_match, door.server)
                yield chain
            return
        name = f"{self._name}|{index}"
        chain = FilterChain(
            filters=[self._http([door], name)],
            transport_socket=self._security(door.server, (*tls.HTTP2, *tls.HTTP1)),
            transport_socket_connect_timeout=Duration(seconds=10),
        )
        _server_names(chain.filter_chain_match, door.server)
        yield chain

    def _http(self, doors: list[Door], name: str) -> Filter:
        workload, percent = self._origin.workload, self._parameters.sampling_percent
        manager = filters.connection_manager(f"gateway_{self._number}", name, workload.application, percent)
        manager.use_remote_address.value = True  # what callers say of themselves is believed inside the mesh only
        manager.strip_any_host_port = True
        manager.http_filters.extend(filters.routed())
        hosts = list(self._virtual_hosts(doors))
        if not any("*" in host.domains for host in hosts):
            unknown = Route(match=RouteMatch(prefix="/"), direct_response=action.response(404, _UNKNOWN))
            hosts.append(VirtualHost(name="unknown", domains=["*"], routes=[unknown]))
        self.routes.append(
            RouteConfiguration(name=name, virtual_hosts=hosts, response_headers_to_remove=[retry.HEADER])
        )
        return listener.http(manager)

    def _virtual_hosts(self, doors: list[Door]) -> Iterator[VirtualHost]:
        by_domain: dict[str, list[tuple[Door, str, Routes]]] = {}
        for door in doors:
            for speaker, routes in self._bound(door):
                if routes.http and (domain := door.takes(speaker, routes.host)):
                    by_domain.setdefault(domain, []).append((door, speaker, routes))
        secured = {host for door in doors if door.server.tls.redirect for _, host in door.server.hosts}
        for domain in sorted({*by_domain, *secured}):
            made = VirtualHost(name=domain, domains=[domain], include_request_attempt_count=True)
            if any(_narrower(pattern, domain) == domain for pattern in secured):
                made.require_tls = VirtualHost.ALL
            ordered = sorted(by_domain.get(domain, ()), key=lambda each: (each[2].dialect, each[1]))
            for door, _, routes in ordered:
                place = self._place(door, Protocol.HTTP1)
                made.routes.extend(each for route in routes.http for each in action.routes(route, place))
            yield made

    def _connections(self, door: Door) -> Iterator[FilterChain]:
        claims = []
        for speaker, routes in self._bound(door):
            if routes.connections and door.takes(speaker, routes.host):
                claims.append((speaker, routes))
        if not claims:
            return
        stated = tuple(route for _, routes in claims for route in routes.connections)
        together = replace(claims[0][1], http=(), connections=stated, ports=None, exported=None)
        yield from connection.chains(self._place(door, Protocol.OTHER, Claim(self._who.namespace, together)))

    def _bound(self, door: Door) -> Iterator[tuple[str, Routes]]:
        for speaker, routes in self._origin.bound:
            if door.gateway.reference in routes.gateways and (routes.ports is None or self._number in routes.ports):
                yield speaker, routes

    def _place(self, door: Door, protocol: Protocol, *claims: Claim) -> Place:
        port = Port(door.server.name, self._number, self._number, protocol)
        service = Service(door.gateway.namespace, door.gateway.name, (port,), (), allow_on_outage=False, headless=True)
        spoken = Spoken(self._who.namespace, tuple(claims))
        return Place(
            Subject(service, (), spoken, self._origin.known, frozenset()), port, self._who, door.gateway.reference
        )

    def _security(self, server: Server, alpn: Iterable[str]) -> TransportSocket:
        if server.tls.mode is Termination.MESH:
            return tls.server(self._parameters.trust_domain, alpn)
        return _security(server.tls, alpn)


def _is_plain_http(server: Server) -> bool:
    return server.tls.mode is Termination.NONE and server.protocol in ("http", "http2", "grpc", "grpc-web")


def _server_names(matched: FilterChainMatch, server: Server) -> None:
    hosts = sorted({host for _, host in server.hosts})
    if "*" not in hosts:
        matched.server_names[:] = hosts


def _security(wanted: ServerTls, alpn: Iterable[str]) -> TransportSocket:
    context = DownstreamTlsContext(common_tls_context=CommonTlsContext(alpn_protocols=alpn))
    common = context.common_tls_context
    common.tls_params.tls_minimum_protocol_version = _VERSIONS[wanted.oldest or "1.2"]
    common.tls_params.tls_maximum_protocol_version = _VERSIONS[wanted.newest]
    common.tls_params.cipher_suites.extend(wanted.ciphers)
    for certificate in wanted.certificates:
        chain, key = _files(certificate)
        common.tls_certificates.add(certificate_chain=DataSource(filename=chain), private_key=DataSource(filename=key))
    if wanted.mode is Termination.SIMPLE:
        return TransportSocket(name="envoy.transport_sockets.tls", typed_config=wire.pack(context))
    context.require_client_certificate.value = wanted.mode is Termination.MUTUAL
    validation = common.validation_context
    validation.trusted_ca.filename = _authorities(wanted)
    validation.verify_certificate_spki.extend(wanted.spki)
    validation.verify_certificate_hash.extend(wanted.hashes)
    for name in wanted.names:
        kinds = SubjectAltNameMatcher.SanType
        kind = kinds.URI if "://" in name else kinds.DNS
        validation.match_typed_subject_alt_names.add(san_type=kind, matcher=StringMatcher(exact=name))
    return TransportSocket(name="envoy.transport_sockets.tls", typed_config=wire.pack(context))


def _files(certificate: Certificate) -> tuple[str, str]:
    if certificate.secret:
        return f"{CREDENTIALS}/{certificate.secret}/tls.crt", f"{CREDENTIALS}/{certificate.secret}/tls.key"
    return certificate.certificate, certificate.key


def _authorities(wanted: ServerTls) -> str:
    if wanted.authorities_secret:
        return f"{CREDENTIALS}/{wanted.authorities_secret}/ca.crt"
    named = next((each.authorities for each in wanted.certificates if each.authorities), "")
    return named or next(f"{CREDENTIALS}/{each.secret}/ca.crt" for each in wanted.certificates if each.secret)


def _narrower(pattern: str, host: str) -> str | None:
    """Return the hosts that both name, of which one may have ``*`` in front; None: there are none."""
    if pattern == host or pattern == "*" or (pattern.startswith("*.") and host.endswith(pattern[1:]) and host != "*"):
        return host
    if host == "*" or (host.startswith("*.") and pattern.endswith(host[1:])):
        return pattern
    return None
