"""From objects to the mesh: references resolved, areas that are made from the same kept.

One decision to know: a namespace is resolved whole, and what it says of another's services is heard by that one in a
second step. So a change costs its namespace, and those that hear something else than before.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

from meshwright.core.config import Key
from meshwright.manager.istio.sidecar import Sidecar as SidecarDocument
from meshwright.manager.istio.workload_entry import INJECTED, WorkloadEntry
from meshwright.manager.model import claims, dialects
from meshwright.manager.model.claims import Said
from meshwright.manager.model.domain import service_of
from meshwright.manager.model.governed import govern, plain
from meshwright.manager.model.kubernetes import ON_POLICY_OUTAGE, ServicePort
from meshwright.manager.model.kubernetes import Service as ServiceDocument
from meshwright.manager.model.meaning import Context, Meaning
from meshwright.manager.model.mesh import (
    NOTHING,
    SILENCE,
    Area,
    Discovered,
    Egress,
    Endpoint,
    Ingress,
    Known,
    Mesh,
    Port,
    Protocol,
    Proxy,
    Service,
    Sidecar,
    Workload,
    protocol,
)
from meshwright.manager.model.parse import Parsed

K = TypeVar("K")
V = TypeVar("V")

_NO_CLUSTER: Mapping[str, Discovered] = MappingProxyType({})


def build(
    revision: int,
    objects: Mapping[Key, Parsed],
    previous: tuple[Mapping[Key, Parsed], Mesh],
    discovered: Mapping[str, Discovered] = _NO_CLUSTER,
) -> Mesh:
    """Resolve valid objects into a mesh, keeping the areas of `previous` that are made from the same."""
    before, mesh = previous
    touched: set[str] = set()  # namespaces that must be resolved anew
    if objects is not before:
        touched |= {key.namespace for key, parsed in objects.items() if before.get(key) is not parsed}
        touched |= {key.namespace for key in before if key not in objects}
    touched |= {
        namespace
        for namespace in {*discovered, *mesh.areas}
        if (mesh.areas[namespace].discovered if namespace in mesh.areas else NOTHING)
        is not discovered.get(namespace, NOTHING)
    }
    members: dict[str, list[Parsed]] = {namespace: [] for namespace in touched if namespace}
    for key, parsed in objects.items():
        if key.namespace in members:
            members[key.namespace].append(parsed)
    areas = {namespace: area for namespace, area in mesh.areas.items() if namespace not in touched}
    for namespace, own in members.items():
        if own or namespace in discovered:
            context = Context(namespace, mesh.root_namespace, mesh.trust_domain)
            areas[namespace] = resolve(context, own, discovered.get(namespace, NOTHING), mesh.areas.get(namespace))
    _listen(areas, mesh.areas, touched)
    if touched:
        _obey(areas, mesh, touched)
    return replace(mesh, revision=revision, areas=areas)


def _listen(areas: dict[str, Area], before: Mapping[str, Area], touched: set[str]) -> None:
    """Let the areas hear what is said of their services, and find the services that their routes name elsewhere."""
    said: dict[str, dict[str, Said]] = defaultdict(dict)
    for speaker, area in areas.items():
        for owner, words in area.says.items():
            said[owner][speaker] = words
    altered = {*touched}
    for namespace, area in areas.items():
        old = before.get(namespace)
        heard: Mapping[str, Said] = said.get(namespace, {})
        if old is not None and _same(heard, old.heard):
            if area is not old:
                areas[namespace] = replace(area, heard=old.heard, spoken=old.spoken)
        else:
            areas[namespace] = replace(area, heard=heard, spoken=claims.gather(namespace, heard))
            altered.add(namespace)
    for namespace, area in areas.items():
        hosts = frozenset(host for external in area.meaning.externals for host in external.hosts)
        if hosts or area.outside:
            outside = claims.outside(namespace, hosts, said.get(claims.OUTSIDE, {}))
            old = before.get(namespace)
            if old is not None and outside == old.outside:
                outside = old.outside
            if outside is not area.outside:
                areas[namespace] = replace(area, outside=outside)
                altered.add(namespace)
    for namespace, area in areas.items():
        if namespace in altered or any(_namespace(host) in altered for host in area.abroad):
            old = before.get(namespace)
            abroad = _abroad(area, areas)
            if old is not None and abroad == old.abroad:
                abroad = old.abroad
            if abroad is not area.abroad:
                areas[namespace] = replace(area, abroad=abroad)


def _obey(areas: dict[str, Area], mesh: Mesh, touched: Collection[str]) -> None:
    """Let the areas know what is enforced at their workloads."""
    all_may_differ = mesh.root_namespace in touched
    for namespace, area in areas.items():
        if not (all_may_differ or namespace in touched or any(name in touched for name, _ in area.governed.bound)):
            continue
        governed = govern(areas, namespace, mesh.root_namespace, mesh.trust_domain)
        before = mesh.areas.get(namespace)
        if before is not None and before.governed == governed:
            governed = before.governed
        if area.governed is not governed:
            obeying = replace(area, governed=governed)
            areas[namespace] = replace(obeying, plain=plain(obeying))


def _abroad(area: Area, areas: Mapping[str, Area]) -> Mapping[str, Known | None]:
    hosts = {
        destination.host
        for each in (*area.spoken.values(), *area.outside.values())
        for claim in each.claims
        for destination in claim.routes.destinations
    }
    return {host: _known(areas, host) for host in sorted(hosts) if _namespace(host) not in ("", area.namespace)}


def _same(one: Mapping[str, Said], other: Mapping[str, Said]) -> bool:
    return one.keys() == other.keys() and all(one[name] is other[name] for name in one)


def _namespace(host: str) -> str:
    found = service_of(host)
    return found[0] if found else ""


def _known(areas: Mapping[str, Area], host: str) -> Known | None:
    area = areas.get(_namespace(host))
    return area.find(host) if area else None


def resolve(
    context: Context, members: Iterable[Parsed], discovered: Discovered = NOTHING, before: Area | None = None
) -> Area:
    """Build one namespace from its objects, and from what a cluster has there; `before` is what it was."""
    namespace = context.namespace
    services: dict[str, Service] = {}
    workloads: dict[str, Workload] = {}
    sidecars: dict[str, Sidecar] = {}
    spoken: list[Parsed] = []
    for parsed in members:
        name = parsed.key.name
        match parsed.document:
            case ServiceDocument() as document:
                services[name] = _service(namespace, document)
            case WorkloadEntry() as document:
                workloads[name] = _workload(namespace, document)
            case SidecarDocument() as document:
                sidecars[name] = _sidecar(namespace, document)
            case _:
                spoken.append(parsed)
    index = _Labels(workloads.values())
    behind = {name: index.select(service.selector) for name, service in services.items()}
    services_of: dict[str, list[str]] = defaultdict(list)
    for name in sorted(behind):
        for workload in behind[name]:
            services_of[workload.name].append(name)
    endpoints = {
        (name, port.number): _endpoints(port, behind[name])
        for name, service in services.items()
        for port in service.ports
    }
    accounts = {name: tuple(sorted({w.service_account for w in found})) for name, found in behind.items()}
    workloads_of = {name: tuple(found) for name, found in services_of.items()}
    all_workloads = _with(workloads, discovered.workloads)
    if sidecars:
        index = _Labels(all_workloads.values())
    meaning, says = _understood(context, tuple(spoken), before)
    for each in meaning.named:
        if each.name not in services and each.name not in discovered.services:
            found = (services.get(name) or discovered.services.get(name) for name in each.backends)
            ports = next((service.ports for service in found if service), ())
            services[each.name] = Service(namespace, each.name, ports, (), allow_on_outage=False)
            accounts[each.name] = ()
            endpoints |= {(each.name, port.number): () for port in ports}
    return Area(
        namespace,
        _with(services, discovered.services),
        all_workloads,
        sidecars,
        _with(endpoints, discovered.endpoints),
        _with(accounts, discovered.accounts),
        _with(workloads_of, discovered.services_of),
        sidecars_of=_sidecars_of(index, sidecars, all_workloads) if sidecars else {},
        discovered=discovered,
        members=tuple(spoken),
        meaning=meaning,
        says=says,
    )


def _understood(
    context: Context, members: tuple[Parsed, ...], before: Area | None
) -> tuple[Meaning, Mapping[str, Said]]:
    """Translate the dialects' objects; what is said of another namespace stays the same object while it is equal."""
    if before is None:
        meaning = dialects.translate(members, context) if members else SILENCE
        return meaning, claims.spread(meaning)
    if len(members) == len(before.members) and all(map(operator.is_, members, before.members)):
        return before.meaning, before.says
    meaning = dialects.translate(members, context)
    says = claims.spread(meaning)
    return meaning, {
        owner: before.says[owner] if before.says.get(owner) == said else said for owner, said in says.items()
    }


def _with(own: Mapping[K, V], clusters: Mapping[K, V]) -> Mapping[K, V]:
    """Put the cluster's entries over the others, copying nothing where there is only one kind."""
    return {**own, **clusters} if own and clusters else own or clusters


class _Labels:
    """Workloads by label, so that a selector costs what it finds."""

    def __init__(self, workloads: Iterable[Workload]) -> None:
        self._by_label: dict[tuple[str, str], list[Workload]] = defaultdict(list)
        for workload in workloads:
            for label in workload.labels.items():
                self._by_label[label].append(workload)

    def select(self, selector: tuple[tuple[str, str], ...]) -> list[Workload]:
        """Return the workloads that have all labels; an empty selector selects none, as in Kubernetes."""
        if not selector:
            return []
        rarest = min(selector, key=lambda label: len(self._by_label.get(label, ())))
        return [
            workload
            for workload in self._by_label.get(rarest, ())
            if all(workload.labels.get(key) == value for key, value in selector)
        ]


def _sidecars_of(
    index: _Labels, sidecars: Mapping[str, Sidecar], workloads: Mapping[str, Workload]
) -> dict[str, tuple[str, ...]]:
    selected: dict[str, list[str]] = defaultdict(list)
    for name in sorted(sidecars):
        for workload in index.select(sidecars[name].selector):
            selected[workload.name].append(name)
    general = tuple(sorted(name for name, sidecar in sidecars.items() if not sidecar.selector))
    return {name: tuple(selected.get(name, ())) or general for name in workloads}


def _endpoints(port: Port, workloads: Iterable[Workload]) -> tuple[Endpoint, ...]:
    found = set()
    for workload in workloads:
        number = workload.target(port)
        if number is not None:  # a workload that doesn't have the named port can't answer on it
            labels = tuple(sorted(workload.labels.items()))
            found.add(Endpoint(workload.address, number, "", workload.proxy is not Proxy.NONE, labels=labels))
    return tuple(sorted(found))


def _service(namespace: str, document: ServiceDocument) -> Service:
    return Service(
        namespace,
        document.metadata.name,
        tuple(_port(port) for port in document.spec.ports),
        tuple(sorted(document.spec.selector.items())),
        document.metadata.annotations.get(ON_POLICY_OUTAGE) == "allow",
        tuple(document.spec.cluster_ips),
    )


def _port(port: ServicePort) -> Port:
    return Port(
        port.name or "",
        port.port,
        port.target_port if port.target_port is not None else port.port,
        protocol(port.name or "http", port.app_protocol or ""),
    )


def _workload(namespace: str, document: WorkloadEntry) -> Workload:
    spec = document.spec
    labels = {**document.metadata.labels, **spec.labels}
    proxy = Proxy(document.metadata.annotations.get(INJECTED, Proxy.SOCKETS.value))
    return Workload(namespace, document.metadata.name, spec.address, spec.ports, labels, spec.service_account, proxy)


def _sidecar(namespace: str, document: SidecarDocument) -> Sidecar:
    spec = document.spec
    selector = spec.workload_selector.labels if spec.workload_selector else {}
    return Sidecar(
        namespace,
        document.metadata.name,
        tuple(sorted(selector.items())),
        tuple(
            Ingress(
                listener.port.number,
                listener.bind,
                listener.default_endpoint.removeprefix("unix://"),
                Protocol.HTTP1 if listener.port.protocol == "HTTP" else Protocol.HTTP2,
            )
            for listener in spec.ingress
        ),
        tuple(
            Egress(listener.bind.removeprefix("unix://"), tuple(listener.hosts))
            for listener in spec.egress
            if listener.bind is not None
        ),
        tuple(host for listener in spec.egress if listener.bind is None for host in listener.hosts),
        None if spec.outbound_traffic_policy is None else spec.outbound_traffic_policy.mode == "ALLOW_ANY",
    )
