"""IngressRules and EgressRules as gateways, hosts outside of the mesh, and the routes between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from meshwright.core.config import Key
from meshwright.manager.classic.egress_rule import EgressRule, EgressRuleSpec
from meshwright.manager.classic.ingress_rule import IngressRule, IngressRuleSpec
from meshwright.manager.classic.routes import request_match
from meshwright.manager.model.domain import host_of
from meshwright.manager.model.external import External, ExternalPort, Resolution
from meshwright.manager.model.gateway import Certificate, Gateway, Server, ServerTls, Termination
from meshwright.manager.model.meaning import Notice
from meshwright.manager.model.parse import Parsed
from meshwright.manager.model.routing import Backend, Destination, Dialect, HttpMatch, HttpRoute, Routes, Text
from meshwright.manager.model.traffic import Settings, Tls, TlsMode, TrafficPolicy

INGRESS, EGRESS = "istio-ingress", "istio-egress"
"""Names of the gateways, and of the egress proxies' service in the mesh's root namespace."""


def ingress(rules: Iterable[Parsed], namespace: str) -> tuple[list[Gateway], list[Routes]]:
    """Give one gateway with a server for each port and certificate, and the routes of each port and host."""
    found = []
    for rule in rules:
        assert isinstance(rule.document, IngressRule)
        found.append((-rule.document.spec.precedence, rule.key.name, rule.key, rule.document.spec))
    found.sort(key=lambda each: each[:2])
    if not found:
        return [], []
    servers: dict[tuple[int, str], set[str]] = {}
    by_host: dict[tuple[int, str], list[HttpRoute]] = {}
    for _, _, key, spec in found:
        host, match = _host(spec, namespace)
        port = spec.port or (443 if spec.tls_secret else 80)
        servers.setdefault((port, spec.tls_secret or ""), set()).add(host)
        destination = Destination(
            spec.destination.host(namespace), spec.destination_port, port_name=spec.destination_port_name or ""
        )
        route = HttpRoute(key, matches=(match,) if match else (), backends=(Backend(destination),))
        by_host.setdefault((port, host), []).append(route)
    reference = f"{namespace}/{INGRESS}"
    routes = [
        Routes(host, Dialect.ROUTE_RULE, tuple(http), ports=frozenset((port,)), gateways=frozenset((reference,)))
        for (port, host), http in sorted(by_host.items())
    ]
    made = tuple(
        Server(
            port, "https" if secret else "http", tuple((namespace, host) for host in sorted(hosts)), tls=_tls(secret)
        )
        for (port, secret), hosts in sorted(servers.items())
    )
    return [Gateway(found[0][2], namespace, INGRESS, (("istio", "ingress"),), made)], routes


def _host(spec: IngressRuleSpec, namespace: str) -> tuple[str, HttpMatch | None]:
    """Return the host that a rule is for; one that it names whole is no condition any more."""
    match = request_match(spec.match, namespace)
    if match is None or match.authority is None or match.authority.kind is not Text.EXACT:
        return "*", match
    rest = replace(match, authority=None)
    return match.authority.value.rsplit(":", 1)[0], rest if rest != HttpMatch() else None


def _tls(secret: str) -> ServerTls:
    return ServerTls(Termination.SIMPLE, (Certificate(secret),)) if secret else ServerTls()


def external(key: Key, spec: EgressRuleSpec) -> External:
    """Return the host outside: a whole name is looked up, of a pattern the address that the caller dialled is taken."""
    host = spec.destination.service
    ports = tuple(ExternalPort(port.port, port.protocol, f"{port.protocol}-{port.port}") for port in spec.ports)
    resolution = Resolution.NONE if host.startswith("*") else Resolution.DNS
    return External(key, (host,), ports, resolution=resolution)


def notices(key: Key, spec: EgressRuleSpec) -> Iterator[Notice]:
    """Tell what of it proxies can't do."""
    if spec.destination.service.startswith("*"):
        message = "has no effect here: proxies don't know what its callers dialled, name the hosts"
        yield Notice(key, "spec.destination.service", "Unsupported", message)


def origination(key: Key, spec: EgressRuleSpec) -> TrafficPolicy | None:
    """Return how `https` ports are spoken to: callers speak plain HTTP there, and the proxy makes it TLS."""
    host = spec.destination.service
    tls = Tls(TlsMode.SIMPLE, server_name="" if host.startswith("*") else host)
    ports = tuple((port.port, Settings(tls=tls)) for port in spec.ports if port.protocol == "https")
    return TrafficPolicy(host, key, ports=ports) if ports else None


def through_proxy(rules: Iterable[Parsed], namespace: str, root_namespace: str) -> tuple[list[Gateway], list[Routes]]:
    """Lead the calls of rules that say so to the egress proxies, and from there to the hosts."""
    chosen = []
    for rule in rules:
        assert isinstance(rule.document, EgressRule)
        if rule.document.spec.use_egress_proxy:
            chosen.append((rule.key, rule.document.spec))
    if not chosen:
        return [], []
    reference = f"{namespace}/{EGRESS}"
    routes = [route for key, spec in chosen for route in _led(key, spec, reference, root_namespace)]
    hosts: dict[tuple[int, str], set[str]] = {}
    for _, spec in chosen:
        for port in spec.ports:
            hosts.setdefault((port.port, port.protocol), set()).add(spec.destination.service)
    servers = tuple(
        Server(number, protocol, tuple((namespace, host) for host in sorted(found)), tls=ServerTls(Termination.MESH))
        for (number, protocol), found in sorted(hosts.items())
    )
    return [Gateway(chosen[0][0], namespace, EGRESS, (("istio", "egress"),), servers)], routes


def _led(key: Key, spec: EgressRuleSpec, reference: str, root_namespace: str) -> Iterator[Routes]:
    host = spec.destination.service
    for port in spec.ports:
        here, there = Destination(host_of(EGRESS, root_namespace), port.port), Destination(host, port.port)
        ports = frozenset((port.port,))
        yield Routes(host, Dialect.ROUTE_RULE, (HttpRoute(key, backends=(Backend(here),)),), ports=ports)
        yield Routes(
            host,
            Dialect.ROUTE_RULE,
            (HttpRoute(key, backends=(Backend(there),)),),
            ports=ports,
            gateways=frozenset((reference,)),
        )
