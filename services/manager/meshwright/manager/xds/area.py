"""What one namespace gives to every proxy that sees it: clusters, endpoints and virtual hosts of its services.

Each piece is translated and serialised once, and again only when what it is made from changed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from meshwright.manager.model.mesh import UNHEARD, Area, Endpoint, Port, Protocol, Service
from meshwright.manager.xds import cluster, endpoint, names, redirect, route, wire

T = TypeVar("T")
M = TypeVar("M")
_Made = dict[Hashable, tuple[object, T]]


@dataclass(frozen=True, slots=True, eq=False)
class AreaResources:
    """Resources by service name (clusters, virtual hosts) and by cluster name (endpoints)."""

    clusters: Mapping[str, Mapping[str, wire.Resource]]
    endpoints: Mapping[str, wire.Resource]
    local_hosts: Mapping[str, tuple[bytes, ...]]  # as its own namespace sees them, with short names
    foreign_hosts: Mapping[str, tuple[bytes, ...]]
    redirected: Mapping[str, wire.Resource]  # listeners of redirecting proxies, by name
    redirected_routes: Mapping[str, wire.Resource]  # and their route configurations, by name
    made: _Made[wire.Resource] = field(repr=False)
    hosts_made: _Made[tuple[bytes, bytes]] = field(repr=False)


EMPTY = AreaResources({}, {}, {}, {}, {}, {}, {}, {})


def translate(area: Area, previous: AreaResources, parameters: names.Parameters) -> AreaResources:
    """Translate a namespace, keeping every resource of `previous` that would come out the same."""
    clusters: dict[str, dict[str, wire.Resource]] = {}
    endpoints: dict[str, wire.Resource] = {}
    local: dict[str, tuple[bytes, ...]] = {}
    foreign: dict[str, tuple[bytes, ...]] = {}
    listeners: dict[str, wire.Resource] = {}
    routes: dict[str, wire.Resource] = {}
    made: _Made[wire.Resource] = {}
    hosts_made: _Made[tuple[bytes, bytes]] = {}
    for service in area.services.values():
        accounts = area.accounts.get(service.name, ())
        of_service = clusters[service.name] = {}
        hosts: list[tuple[bytes, bytes]] = []
        for port in _carried_ports(service):
            name = names.outbound(service, port)
            addresses = _addresses(area, service, port, parameters)
            of_service[name] = _keep(
                previous.made,
                made,
                ("cluster", name),
                (accounts, port, service.clustered),
                partial(_cluster, service, port, accounts, parameters),
            )
            endpoints[name] = _keep(
                previous.made,
                made,
                ("endpoint", name),
                addresses,
                partial(_endpoints, name, addresses),
            )
            if service.cluster_ips:
                # Bytes to a service that nobody of the mesh serves stay as they are: they may be TLS under a port's
                # name that says HTTP.
                http = _http(port, addresses)
                listeners[name] = _keep(
                    previous.made,
                    made,
                    ("listener", name),
                    (port, service.cluster_ips, http),
                    partial(_redirected, service, port, parameters, http=http),
                )
                if http:
                    routes[name] = _keep(
                        previous.made,
                        made,
                        ("route", name),
                        (service.cluster_ips, _behind(area, service)),
                        partial(_redirected_routes, area, service, port),
                    )
            if port.protocol is Protocol.OTHER:
                continue
            hosts.append(
                _keep(
                    previous.hosts_made,
                    hosts_made,
                    name,
                    _behind(area, service),
                    partial(_hosts, area, service, port),
                )
            )
        local[service.name] = tuple(with_short for with_short, _ in hosts)
        foreign[service.name] = tuple(without for _, without in hosts)
    return AreaResources(
        _same(previous.clusters, clusters),
        endpoints,
        _same(previous.local_hosts, local),
        _same(previous.foreign_hosts, foreign),
        _same(previous.redirected, listeners),
        routes,
        made,
        hosts_made,
    )


def moved(area: Area, before: Area, previous: AreaResources, parameters: names.Parameters) -> AreaResources | None:
    """Translate a namespace in which nothing but endpoints differs from `before`; None: something else does.

    It is what happens most often by far, and costs the services whose endpoints moved.
    """
    same = area.services is before.services and area.accounts is before.accounts
    if (
        not same
        or area.spoken != before.spoken
        or area.abroad != before.abroad
        or area.endpoints.keys() != before.endpoints.keys()
    ):
        return None
    endpoints, made = {**previous.endpoints}, {**previous.made}
    for key, now in area.endpoints.items():
        if now is before.endpoints[key]:
            continue
        service = area.services[key[0]]
        for port in (port for port in _carried_ports(service) if port.number == key[1]):
            name = names.outbound(service, port)
            addresses = _addresses(area, service, port, parameters)
            if service.cluster_ips and _http(port, addresses) is not _http(
                port, _addresses(before, service, port, parameters)
            ):
                return None
            endpoints[name] = _keep(
                previous.made, made, ("endpoint", name), addresses, partial(_endpoints, name, addresses)
            )
    return replace(previous, endpoints=endpoints, made=made)


def _addresses(area: Area, service: Service, port: Port, parameters: names.Parameters) -> tuple[Endpoint, ...]:
    addresses = area.endpoints.get((service.name, port.number), ())
    if parameters.outbound_plaintext:
        return addresses
    return tuple(address for address in addresses if address.meshed or address.outside)


def _http(port: Port, addresses: tuple[Endpoint, ...]) -> bool:
    return port.protocol is not Protocol.OTHER and (not addresses or any(address.meshed for address in addresses))


def _same(old: M, new: M) -> M:
    """Return the old object for an equal new one: then it shows by identity that nothing here changed."""
    return old if old == new else new


def _cluster(service: Service, port: Port, accounts: tuple[str, ...], parameters: names.Parameters) -> wire.Resource:
    return wire.resource(names.outbound(service, port), cluster.outbound(service, port, accounts, parameters))


def _endpoints(name: str, addresses: tuple[Endpoint, ...]) -> wire.Resource:
    return wire.resource(name, endpoint.load_assignment(name, addresses))


def _redirected(service: Service, port: Port, parameters: names.Parameters, *, http: bool) -> wire.Resource:
    return wire.resource(names.outbound(service, port), redirect.service(service, port, parameters, http=http))


def _redirected_routes(area: Area, service: Service, port: Port) -> wire.Resource:
    return wire.resource(names.outbound(service, port), route.redirected_configuration(area, service, port))


def _hosts(area: Area, service: Service, port: Port) -> tuple[bytes, bytes]:
    local = route.outbound(area, service, port, short=True)
    foreign = route.outbound(area, service, port, short=False)
    return local.SerializeToString(deterministic=True), foreign.SerializeToString(deterministic=True)


def _carried_ports(service: Service) -> Iterator[Port]:
    return (port for port in service.ports if port.protocol is not Protocol.OTHER or service.clustered)


def _behind(area: Area, service: Service) -> object:
    """All that a service's routes are made from."""
    claims = area.spoken.get(service.name, UNHEARD).claims
    hosts = {destination.host for claim in claims for destination in claim.routes.destinations}
    found = {host: area.service(host) for host in sorted(hosts)}
    return service.ports, claims, [(host, led_to.ports if led_to else None) for host, led_to in found.items()]


def _keep(old: _Made[T], new: _Made[T], key: Hashable, made_from: object, make: Callable[[], T]) -> T:
    before = old.get(key)
    entry = before if before is not None and before[0] == made_from else (made_from, make())
    new[key] = entry
    return entry[1]
