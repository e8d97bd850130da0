"""What a namespace gives to every proxy that sees it: clusters, endpoints, listeners and virtual hosts of its services.

Each piece is translated and serialised once for all callers that have the same (`caller`), and again only when what it
is made from changed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import structlog

from meshwright.manager import metrics
from meshwright.manager.model.claims import Labels
from meshwright.manager.model.external import External
from meshwright.manager.model.mesh import Area, Endpoint, Port, Protocol, Service
from meshwright.manager.model.routing import CallerMatch
from meshwright.manager.xds import caller, cluster, endpoint, external, names, redirect, route, subject, wire
from meshwright.manager.xds.action import Place
from meshwright.manager.xds.caller import Caller, Variants
from meshwright.manager.xds.subject import Subject

_log = structlog.get_logger(__name__)

T = TypeVar("T")
M = TypeVar("M")
_Made = dict[Hashable, tuple[object, Any]]

ByName = Mapping[str, wire.Resource]


@dataclass(frozen=True, slots=True, eq=False)
class AreaResources:
    """Resources by service, and endpoints and route configurations by the names under which they are asked for."""

    clusters: Mapping[str, Variants[ByName]]
    endpoints: ByName
    hosts: Mapping[str, Variants[tuple[bytes, ...]]]  # virtual hosts; its own namespace's have short names too
    listeners: Mapping[str, Variants[ByName]]  # of redirecting proxies
    routes: Mapping[str, Variants[ByName]]  # of those listeners: all of a service's under each of their names
    made: _Made = field(repr=False)


EMPTY = AreaResources({}, {}, {}, {}, {}, {})


def translate(area: Area, previous: AreaResources, parameters: names.Parameters) -> AreaResources:
    """Translate a namespace, keeping every resource of `previous` that would come out the same."""
    clusters: dict[str, Variants[ByName]] = {}
    endpoints: dict[str, wire.Resource] = {}
    hosts: dict[str, Variants[tuple[bytes, ...]]] = {}
    listeners: dict[str, Variants[ByName]] = {}
    routes: dict[str, Variants[ByName]] = {}
    made: _Made = {}
    for service in area.services.values():
        whole = subject.subject(area, service, _http_ports(area, service, parameters))

        def kept(kind: str, part: Subject, make: Callable[[Subject, Caller], T], *more: str) -> Variants[T]:
            return _keep(previous.made, made, (kind, part.service.name), part, partial(_variants, part, make, *more))

        clusters[service.name] = kept("clusters", whole.of_clusters, partial(_clusters, parameters))
        hosts[service.name] = kept("hosts", whole.of_hosts, _hosts, service.namespace)
        if service.cluster_ips:
            listeners[service.name] = kept("listeners", whole.of_listeners, partial(_listeners, parameters))
            redirected = kept("routes", whole.of_routes, _routes)
            routes |= {names.outbound_to(service.host, number): redirected for number in whole.http}
        for name, addresses in _assignments(area, service, subject.carried(service), parameters):
            endpoints[name] = _assigned(previous.made, made, name, addresses)
    for whole, entry in external.subjects(area):
        host = whole.service.external

        def known(kind: str, make: Callable[[Subject, Caller], T], nothing: T) -> Variants[T]:
            made_from = whole, entry  # noqa: B023 (it is called in this turn)
            make = partial(_told, entry, make, nothing)  # noqa: B023
            variants = partial(_variants, whole, make, area.namespace, *(entry.exported or ()))  # noqa: B023
            return _keep(previous.made, made, (kind, host), made_from, variants)  # noqa: B023

        clusters[host] = known("clusters", partial(external.clusters, parameters, entry), {})
        hosts[host] = known("hosts", _hosts, ())
        if whole.service.cluster_ips:
            listeners[host] = known("listeners", partial(_listeners, parameters), {})
            redirected = known("routes", _routes, {})
            routes |= {names.outbound_to(host, number): redirected for number in whole.http}
    return AreaResources(
        _same(previous.clusters, clusters),
        endpoints,
        _same(previous.hosts, hosts),
        _same(previous.listeners, listeners),
        _same(previous.routes, routes),
        made,
    )


def moved(area: Area, before: Area, previous: AreaResources, parameters: names.Parameters) -> AreaResources | None:
    """Translate a namespace in which nothing but endpoints differs from `before`; None: something else does.

    It is what happens most often by far, and costs the services whose endpoints moved.
    """
    same = area.services is before.services and area.accounts is before.accounts and area.spoken is before.spoken
    same = same and area.abroad is before.abroad and area.plain == before.plain
    if not same or area.endpoints.keys() != before.endpoints.keys():
        return None
    if area.outside is not before.outside or area.meaning.externals != before.meaning.externals:
        return None
    if any(entry.selector for entry in area.meaning.externals):
        return None  # its endpoints are workloads, and stand in clusters
    endpoints, made = {**previous.endpoints}, {**previous.made}
    for key, now in area.endpoints.items():
        if now is before.endpoints[key]:
            continue
        service = area.services[key[0]]
        if _http_ports(area, service, parameters) != _http_ports(before, service, parameters):
            return None
        ports = (port for port in subject.carried(service) if port.number == key[1])
        for name, addresses in _assignments(area, service, ports, parameters):
            endpoints[name] = _assigned(previous.made, made, name, addresses)
    return replace(previous, endpoints=endpoints, made=made)


def _told(entry: External, make: Callable[[Subject, Caller], T], nothing: T, of_service: Subject, who: Caller) -> T:
    """Make something of an external host for those callers that know of it."""
    return make(of_service, who) if entry.exported is None or who.namespace in entry.exported else nothing


def _variants(part: Subject, make: Callable[[Subject, Caller], T], *more: str) -> Variants[T]:
    """Let resources differ for whom something is said, and for the namespaces of `more`."""
    spoken = [part.spoken, *(known.spoken for known in part.known.values())]
    namespaces = frozenset(more).union(*(each.audiences() for each in spoken))
    matter = frozenset[CallerMatch]().union(*(caller.conditions(each) for each in spoken))
    return Variants(namespaces, matter, partial(_soundly, part, make))


def _soundly(part: Subject, make: Callable[[Subject, Caller], T], who: Caller) -> T:
    """Let a service that can't be translated cost its own callers only, whose requests are refused.

    Objects are judged before they come here, so it is a mistake of ours; but one object mustn't stop what all proxies
    are sent.
    """
    try:
        return make(part, who)
    except Exception:
        metrics.UNTRANSLATED.inc()
        _log.exception("service_not_translated", host=part.service.host, caller=who.namespace)
        return make(part.refusing("what is said of this host can't be translated: the manager's log says why\n"), who)


def _clusters(parameters: names.Parameters, of_service: Subject, who: Caller) -> ByName:
    subsets = of_service.subsets(who)
    made = [
        cluster.outbound(
            of_service, port, of_service.settings(port, who, subset.name if subset else ""), parameters, subset
        )
        for port in of_service.ports
        for subset in (None, *subsets)
    ]
    return {each.name: wire.resource(each.name, each) for each in made}


def _hosts(of_service: Subject, who: Caller) -> tuple[bytes, ...]:
    short = who.namespace == of_service.service.namespace
    return tuple(
        route.outbound(Place(of_service, port, who), short=short).SerializeToString(deterministic=True)
        for port in of_service.ports
        if port.protocol is not Protocol.OTHER
    )


def _listeners(parameters: names.Parameters, of_service: Subject, who: Caller) -> ByName:
    made = [
        redirect.service(Place(of_service, port, who), parameters, http=port.number in of_service.http)
        for port in of_service.ports
    ]
    return {each.name: wire.resource(each.name, each) for each in made}


def _routes(of_service: Subject, who: Caller) -> ByName:
    made = [
        route.redirected_configuration(Place(of_service, port, who))
        for port in of_service.ports
        if port.number in of_service.http
    ]
    return {each.name: wire.resource(each.name, each) for each in made}


def _http_ports(area: Area, service: Service, parameters: names.Parameters) -> frozenset[int]:
    """Return the ports whose connections are taken for requests in a redirecting proxy.

    Bytes to a service that nobody of the mesh serves stay as they are: they may be TLS under a port's name that says
    HTTP.
    """
    if not service.cluster_ips:
        return frozenset()
    return frozenset(
        port.number
        for port in subject.carried(service)
        if port.protocol is not Protocol.OTHER and _meshed(_addresses(area, service, port, parameters))
    )


def _meshed(addresses: tuple[Endpoint, ...]) -> bool:
    return not addresses or any(address.meshed for address in addresses)


def _assignments(
    area: Area, service: Service, ports: Iterable[Port], parameters: names.Parameters
) -> Iterator[tuple[str, tuple[Endpoint, ...]]]:
    """Yield the endpoints of each port, and of each part of the service that has clusters of its own."""
    groups = subject.groups(area.said_of(service.name))
    for port in ports:
        addresses = _addresses(area, service, port, parameters)
        yield names.outbound(service, port), addresses
        for labels in groups:
            yield names.outbound(service, port, names.group(labels)), tuple(_labelled(addresses, labels))


def _labelled(addresses: Iterable[Endpoint], labels: Labels) -> Iterator[Endpoint]:
    wanted = frozenset(labels)
    return (address for address in addresses if wanted <= frozenset(address.labels))


def _addresses(area: Area, service: Service, port: Port, parameters: names.Parameters) -> tuple[Endpoint, ...]:
    addresses = area.endpoints.get((service.name, port.number), ())
    if area.plain:
        addresses = tuple(
            each._replace(meshed=each.meshed and (each.address, each.port) not in area.plain) for each in addresses
        )
    if parameters.outbound_plaintext:
        return addresses
    return tuple(address for address in addresses if address.meshed or address.outside)


def _assigned(old: _Made, new: _Made, name: str, addresses: tuple[Endpoint, ...]) -> wire.Resource:
    without_labels = tuple(address[:-1] for address in addresses)  # which proxies aren't told
    return _keep(old, new, ("endpoint", name), without_labels, partial(_endpoints, name, addresses))


def _endpoints(name: str, addresses: tuple[Endpoint, ...]) -> wire.Resource:
    return wire.resource(name, endpoint.load_assignment(name, addresses))


def _same(old: M, new: M) -> M:
    """Return the old object for an equal new one: then it shows by identity that nothing here changed."""
    return old if old == new else new


def _keep(old: _Made, new: _Made, key: Hashable, made_from: object, make: Callable[[], T]) -> T:
    before = old.get(key)
    entry: tuple[object, T] = before if before is not None and before[0] == made_from else (made_from, make())
    new[key] = entry
    return entry[1]
