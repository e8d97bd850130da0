"""Hosts that no Service describes, as clusters: found by DNS, or at addresses that an entry states.

One decision to know: TLS is spoken where a policy says so, and then the host's own name is what its certificate must
have; what the application itself encrypts travels as the bytes it is.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from meshwright.api.envoy.config.cluster.v3.cluster_pb2 import Cluster
from meshwright.api.envoy.config.core.v3.address_pb2 import Address, SocketAddress
from meshwright.api.envoy.config.core.v3.base_pb2 import Locality, TransportSocket
from meshwright.api.envoy.config.endpoint.v3.endpoint_components_pb2 import Endpoint, LbEndpoint, LocalityLbEndpoints
from meshwright.api.envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from meshwright.manager.model.claims import Spoken
from meshwright.manager.model.external import External, ExternalEndpoint, ExternalPort, Resolution
from meshwright.manager.model.mesh import Area, Mesh, Port, Protocol, Service
from meshwright.manager.model.traffic import Ejection, Limits, Settings, Subset, Tls, TlsMode, settings_of
from meshwright.manager.xds import cluster, names, policy, tls, wire
from meshwright.manager.xds.caller import Caller
from meshwright.manager.xds.quantity import duration
from meshwright.manager.xds.subject import Subject

_CONNECT_SECONDS = 5
_PROTOCOLS = {
    "http": Protocol.HTTP1,
    "grpc-web": Protocol.HTTP1,
    "http2": Protocol.HTTP2,
    "grpc": Protocol.HTTP2,
}
_TYPES = {
    Resolution.NONE: Cluster.STRICT_DNS,  # the caller named a host; what it dialled was its proxy
    Resolution.STATIC: Cluster.STATIC,
    Resolution.DNS: Cluster.STRICT_DNS,
    Resolution.DNS_ROUND_ROBIN: Cluster.LOGICAL_DNS,
}


def subjects(area: Area) -> Iterator[tuple[Subject, External]]:
    """Yield the external hosts of a namespace that proxies can reach; of two entries of one host the first by name."""
    seen = set()
    for entry in area.meaning.externals:
        for host in entry.hosts:
            if host not in seen and "." in host and _addressed(entry, host):
                seen.add(host)
                yield _subject(area, entry, host), _complete(area, entry)


def describing(mesh: Mesh) -> Mapping[str, list[tuple[str, External]]]:
    """Return the namespaces that describe each external host, in their order, with the entry of each."""
    found: dict[str, dict[str, External]] = {}
    for namespace, area in sorted(mesh.areas.items()):
        for entry in area.meaning.externals:
            for host in entry.hosts:
                found.setdefault(host, {}).setdefault(namespace, entry)
    return {host: list(entries.items()) for host, entries in found.items()}


def owner(entries: Iterable[tuple[str, External]], caller: str) -> str | None:
    """Return whose entry for a host holds for a caller: its own namespace's, or the first that is exported to it."""
    known = [name for name, entry in entries if entry.exported is None or caller in entry.exported]
    return caller if caller in known else next(iter(known), None)


def _addressed(entry: External, host: str) -> bool:
    """Whether it can be told where a host is, without knowing what its callers dial."""
    return bool(entry.endpoints or entry.selector) or not host.startswith("*")


def _subject(area: Area, entry: External, host: str) -> Subject:
    spoken = area.outside.get(host) or Spoken(area.namespace)
    ports = tuple(_port(port, spoken) for port in entry.ports)
    single = tuple(address for address in map(_single, entry.addresses) if address)
    name = entry.origin.name
    service = Service(area.namespace, name, ports, (), False, single, headless=True, external=host)
    led_to = {each.host for claim in spoken.claims for each in claim.routes.destinations}
    known = {each: found for each in sorted(led_to) if (found := area.find(each)) is not None}
    http = frozenset(port.number for port in ports if port.protocol is not Protocol.OTHER)
    return Subject(service, (), spoken, known, http if single else frozenset())


def _port(port: ExternalPort, spoken: Spoken) -> Port:
    """Return a port as callers meet it: one of HTTPS is HTTP where their proxy makes the TLS."""
    protocol = _PROTOCOLS.get(port.protocol, Protocol.OTHER)
    if port.protocol == "https":
        wanted = settings_of((policy for _, policy in spoken.advice), port.number).tls
        if wanted is not None and wanted.mode in (TlsMode.SIMPLE, TlsMode.MUTUAL):
            protocol = Protocol.HTTP1
    return Port(port.name, port.number, port.target or port.number, protocol)


def _single(subnet: str) -> str:
    """Return the address of a subnet that has only one; connections to others aren't taken for the host's."""
    network = ipaddress.ip_network(subnet)
    return str(network.network_address) if network.num_addresses == 1 else ""


def _complete(area: Area, entry: External) -> External:
    """Put in the workloads that an entry selects."""
    if not entry.selector:
        return entry
    chosen = tuple(
        ExternalEndpoint(
            workload.address,
            tuple(sorted(workload.ports.items())),
            tuple(sorted(workload.labels.items())),
            service_account=workload.service_account,
        )
        for _, workload in sorted(area.workloads.items())
        if all(workload.labels.get(key) == value for key, value in entry.selector)
    )
    return replace(entry, endpoints=chosen, resolution=Resolution.STATIC)


def clusters(
    parameters: names.Parameters, entry: External, of_service: Subject, who: Caller
) -> Mapping[str, wire.Resource]:
    """Give a host's clusters, one for each port and each subset of it."""
    made = [
        _cluster(entry, of_service, (port, subset), of_service.settings(port, who, _name(subset)), parameters)
        for port in of_service.ports
        for subset in (None, *of_service.subsets(who))
    ]
    return {each.name: wire.resource(each.name, each) for each in made}


def _cluster(
    entry: External,
    of_service: Subject,
    part: tuple[Port, Subset | None],
    settings: Settings,
    parameters: names.Parameters,
) -> Cluster:
    host, limits = of_service.service.host, settings.limits or Limits()
    port, subset = part
    name = names.outbound(of_service.service, port, _name(subset))
    made = Cluster(
        name=name,
        alt_stat_name=f"{host}:{port.number}" + (f":{subset.name}" if subset else ""),
        connect_timeout=duration(limits.connect_seconds or _CONNECT_SECONDS),
        circuit_breakers=policy.limits(limits),
        outlier_detection=policy.ejection(settings.ejection or Ejection()),
        dns_lookup_family=Cluster.V4_PREFERRED,
        load_assignment=ClusterLoadAssignment(cluster_name=name, endpoints=_localities(entry, port, host, subset)),
    )
    policy.balance(made, settings, headless=False)
    one = len(made.load_assignment.endpoints) == 1 and len(made.load_assignment.endpoints[0].lb_endpoints) == 1
    made.type = _TYPES.get(entry.resolution, Cluster.STRICT_DNS)
    if made.type == Cluster.LOGICAL_DNS and not one:
        made.type = Cluster.STRICT_DNS  # the other takes one name only
    if limits.keep_alive is not None:
        made.upstream_connection_options.tcp_keepalive.CopyFrom(policy.keep_alive(limits.keep_alive))
    http2 = port.protocol is Protocol.HTTP2 or (port.protocol is Protocol.HTTP1 and bool(limits.http2))
    spoken = () if port.protocol is Protocol.OTHER else tls.HTTP2 if http2 else tls.HTTP1
    security = _security(entry, host, settings.tls, spoken, parameters)
    if security is not None:
        made.transport_socket.CopyFrom(security)
    if port.protocol is not Protocol.OTHER:
        cluster.speak(made, limits, http2=http2)
    return made


def _name(subset: Subset | None) -> str:
    return subset.name if subset else ""


def _security(
    entry: External, host: str, wanted: Tls | None, alpn: tuple[str, ...], parameters: names.Parameters
) -> TransportSocket | None:
    if wanted is not None and wanted.mode is not TlsMode.MESH:
        own_name = "" if host.startswith("*") else host
        wanted = replace(wanted, server_name=wanted.server_name or own_name, names=wanted.names or entry.names)
        return tls.outside(wanted, alpn)
    if not entry.internal and wanted is None:
        return None
    accounts = sorted({endpoint.service_account for endpoint in entry.endpoints if endpoint.service_account})
    namespace = entry.origin.namespace
    accepted = [parameters.spiffe_id(namespace, account) for account in accounts]
    nobody = f"spiffe://{parameters.trust_domain}/ns/{namespace}/sa/"  # nobody's ID ends there
    return tls.client([*accepted, *entry.names] or [nobody], alpn or tls.TCP)


def _localities(entry: External, port: Port, host: str, subset: Subset | None) -> list[LocalityLbEndpoints]:
    stated = entry.endpoints or (ExternalEndpoint(host),)
    wanted = frozenset(subset.labels) if subset else frozenset()
    by_place: dict[str, list[LbEndpoint]] = {}
    for each in stated:
        if wanted <= frozenset(each.labels):
            by_place.setdefault(each.locality, []).append(_endpoint(each, port))
    return [
        LocalityLbEndpoints(locality=_locality(place) if place else None, lb_endpoints=found)
        for place, found in sorted(by_place.items())
    ]


def _endpoint(found: ExternalEndpoint, port: Port) -> LbEndpoint:
    if found.address.startswith("unix://"):
        address = tls.socket_address(found.address.removeprefix("unix://"))
    else:
        number = dict(found.ports).get(port.name, int(port.target))
        address = Address(socket_address=SocketAddress(address=found.address, port_value=number))
    made = LbEndpoint(endpoint=Endpoint(address=address))
    if found.weight:
        made.load_balancing_weight.value = found.weight
    return made


def _locality(place: str) -> Locality:
    region, _, rest = place.partition("/")
    zone, _, sub_zone = rest.partition("/")
    return Locality(region=region, zone=zone, sub_zone=sub_zone)
