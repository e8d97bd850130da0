"""What belongs to one proxy alone: its listeners, the clusters of its application, and its inbound routes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from meshwright.manager.model.governed import FREE, Governed
from meshwright.manager.model.mesh import Area, Protocol, Proxy, Service, Sidecar, Workload
from meshwright.manager.xds import cluster, gateway, listener, names, redirect, route, wire

Hosts = tuple[str, ...]
"""Patterns NAMESPACE/HOST of what an application may see."""
EVERYTHING: Hosts = ("*/*",)


@dataclass(frozen=True, slots=True)
class ProxySource:
    """All that a proxy's own resources are made from."""

    workload: Workload
    sidecar: Sidecar | None
    services: tuple[Service, ...]
    governed: Governed = FREE


@dataclass(frozen=True, slots=True, eq=False)
class ProxyResources:
    """A proxy's own resources, and the outbound route configurations that it shares, by name."""

    source: ProxySource | gateway.GatewaySource
    listeners: Mapping[str, wire.Resource]
    clusters: Mapping[str, wire.Resource]
    routes: Mapping[str, wire.Resource]
    outbound: Mapping[str, Hosts]
    route_names: frozenset[str]  # that the listeners name
    redirecting: bool = False  # it has the listeners and routes of all services too
    standing: bool = False  # it is a gateway's, which sees every service
    scope: Hosts = EVERYTHING  # what it sees, if it redirects


def source(area: Area, name: str) -> ProxySource | None:
    """Collect what a workload's proxy serves; None when there is no such workload."""
    workload = area.workloads.get(name)
    if workload is None:
        return None
    sidecars = area.sidecars_of.get(name, ())
    services = tuple(area.services[service] for service in area.services_of.get(name, ()))
    sidecar = area.sidecars[sidecars[0]] if sidecars else None
    return ProxySource(workload, sidecar, services, area.governed.of(workload))


def translate(area: Area, origin: ProxySource, parameters: names.Parameters) -> ProxyResources:
    """Translate one proxy's own part."""
    workload, sidecar = origin.workload, origin.sidecar
    # With several services behind one port the strictest decides: a filter has one answer to an outage.
    allow = bool(origin.services) and all(service.allow_on_outage for service in origin.services)
    guard = listener.Guard(origin.governed, allow)
    listeners: list[wire.Resource] = []
    clusters: list[wire.Resource] = []
    routes: list[wire.Resource] = []
    outbound: dict[str, Hosts] = {}
    if workload.proxy is Proxy.REDIRECT:
        return _redirecting(area, origin, parameters, guard)
    for ingress in sidecar.ingress if sidecar else ():
        name = f"inbound|{ingress.number}|{workload.name}.{workload.namespace}"
        inbound = listener.inbound(workload, ingress, name, _traced(origin, parameters, inbound=True), guard)
        listeners.append(wire.resource(inbound.name, inbound))
        clusters.append(wire.resource(names.inbound(ingress.number), cluster.inbound(workload, ingress)))
        routes.append(wire.resource(name, route.inbound_configuration(name, area, workload, ingress)))
    for egress in sidecar.egress if sidecar else ():
        name = f"outbound|{workload.namespace}|{','.join(egress.hosts)}"
        outbound[name] = egress.hosts
        to_mesh = listener.outbound(workload, egress, name, _traced(origin, parameters, inbound=False))
        listeners.append(wire.resource(to_mesh.name, to_mesh))
    inbound_routes = _by_name(routes)
    return ProxyResources(
        origin,
        _by_name(listeners),
        _by_name(clusters),
        inbound_routes,
        outbound,
        frozenset(inbound_routes) | frozenset(outbound),
    )


def standing(origin: gateway.GatewaySource, parameters: names.Parameters) -> ProxyResources:
    """Translate all that a gateway's proxy has of its own."""
    listeners, routes = gateway.translate(origin, parameters)
    by_name = _by_name([wire.resource(made.name, made) for made in routes])
    return ProxyResources(
        origin,
        _by_name([wire.resource(made.name, made) for made in listeners]),
        {},
        by_name,
        {},
        frozenset(by_name),
        standing=True,
    )


def _redirecting(
    area: Area, origin: ProxySource, parameters: names.Parameters, guard: listener.Guard
) -> ProxyResources:
    """Translate the own part of a proxy in an injected pod; listeners and routes of services are shared by all."""
    workload = origin.workload
    ports = redirect.captured(workload, origin.services)
    named = [(ingress, f"inbound|{ingress.number}|{workload.name}.{workload.namespace}") for ingress in ports]
    clusters = [wire.resource(names.inbound(ingress.number), cluster.inbound(workload, ingress)) for ingress in ports]
    for made in (
        cluster.original(names.PASS_THROUGH),
        cluster.original(names.INBOUND_PASS_THROUGH, cluster.from_inbound(workload.address)),
        cluster.nowhere(names.NOWHERE),
    ):
        clusters.append(wire.resource(made.name, made))
    sidecar = origin.sidecar
    if sidecar is not None and sidecar.others is not None:
        parameters = replace(parameters, outbound_unknown=sidecar.others)
    to_mesh = redirect.outbound(parameters)
    from_mesh = redirect.inbound(workload, named, _traced(origin, parameters, inbound=True), guard)
    routes = _by_name(
        [
            wire.resource(name, route.inbound_configuration(name, area, workload, ingress))
            for ingress, name in named
            if ingress.protocol is not Protocol.OTHER
        ]
    )
    return ProxyResources(
        origin,
        _by_name([wire.resource(made.name, made) for made in (from_mesh, to_mesh)]),
        _by_name(clusters),
        routes,
        {},
        frozenset(routes),
        redirecting=True,
        scope=(sidecar.scope if sidecar else ()) or EVERYTHING,
    )


def _traced(origin: ProxySource, parameters: names.Parameters, *, inbound: bool) -> names.Parameters:
    percent = origin.governed.traced(parameters.sampling_percent, inbound=inbound)
    return parameters if percent == parameters.sampling_percent else replace(parameters, sampling_percent=percent)


def _by_name(resources: list[wire.Resource]) -> dict[str, wire.Resource]:
    return {resource.name: resource for resource in resources}
