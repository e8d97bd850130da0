"""TrafficTargets as grants of access, and IdentityBindings as names of identities.

Grants add up, and what none gives is denied. Rules of one target: HTTPRouteGroups are alternatives, and so are
TCPRoutes; with both, a call must fit one of each (SMI §Traffic Access Control). One decision to know: a reference that
leads nowhere only ever takes away. A target all of whose TCPRoutes are missing lets no TCP through, HTTP included,
because nobody knows which ports were meant.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from meshwright.core.config import Key
from meshwright.core.spiffe import workload_id
from meshwright.manager.model.access import Access, AccessRule, Binding, Callers, Operations, Verdict
from meshwright.manager.model.meaning import Notice
from meshwright.manager.model.routing import Text, TextMatch
from meshwright.manager.smi.identity_binding import IdentityBinding
from meshwright.manager.smi.objects import Objects, headers, methods, path
from meshwright.manager.smi.traffic_target import Subject, TrafficTarget

_SCHEME = "spiffe://"


def bindings(objects: Objects) -> Iterator[Binding]:
    """Yield what the bindings name."""
    for key, document in objects.bindings.values():
        schemes = document.spec.schemes
        selector = schemes.pod_label_selector
        yield Binding(
            key.namespace,
            key.name,
            tuple(sorted(selector.match_labels.items())) if selector else (),
            (schemes.service_account,) if schemes.service_account else (),
            tuple(identity(text) for text in schemes.spiffe_identities or ()),
        )


def identity(text: str) -> str:
    """Return a whole SPIFFE ID; the specification's examples leave the scheme out."""
    return text if text.startswith(_SCHEME) else f"{_SCHEME}{text}"


def translate(objects: Objects) -> Iterator[Access]:
    """Yield the grants of each target."""
    for key, target in objects.targets:
        callers = tuple(_caller(objects, key, number, each) for number, each in enumerate(target.spec.sources))
        operations = tuple(_operations(objects, key, target))
        rules = (AccessRule(callers, operations),) if callers and operations else ()
        for selector, accounts in _selected(objects, key, target.spec.destination):
            yield Access(key, Verdict.ALLOW, rules, selector, accounts)


def _caller(objects: Objects, key: Key, number: int, source: Subject) -> Callers:
    namespace = source.namespace or objects.context.namespace
    if source.kind == "ServiceAccount":
        whole = workload_id(objects.context.trust_domain, namespace, source.name)
        return Callers(identities=(TextMatch(Text.EXACT, whole),))
    if namespace == objects.context.namespace and source.name not in objects.bindings:
        message = f"IdentityBinding {source.name} doesn't exist: it lets nobody in until it does"
        objects.miss(key, f"spec.sources[{number}].name", message)
    return Callers(bindings=((namespace, source.name),))


def _selected(
    objects: Objects, key: Key, destination: Subject
) -> Iterator[tuple[tuple[tuple[str, str], ...], tuple[str, ...]]]:
    """Yield which workloads are called: by labels, or by service accounts."""
    if destination.kind == "ServiceAccount":
        yield (), (destination.name,)
        return
    found = objects.bindings.get(destination.name)
    if found is None:
        message = f"IdentityBinding {destination.name} doesn't exist: the target is for no workload until it does"
        objects.miss(key, "spec.destination.name", message)
        return
    schemes = found[1].spec.schemes
    if schemes.pod_label_selector:
        yield tuple(sorted(schemes.pod_label_selector.match_labels.items())), ()
    accounts = {schemes.service_account} if schemes.service_account else set()
    accounts |= set(_accounts(objects, key, found[1]))
    if accounts:
        yield (), tuple(sorted(accounts))


def _accounts(objects: Objects, key: Key, binding: IdentityBinding) -> Iterator[str]:
    context = objects.context
    prefix = workload_id(context.trust_domain, context.namespace, "")
    for text in binding.spec.schemes.spiffe_identities or ():
        whole = identity(text)
        if whole.startswith(prefix):
            yield whole.removeprefix(prefix)
        else:
            message = f"{whole} is no workload of namespace {context.namespace}: a target is for its own namespace's"
            objects.miss(key, "spec.destination.name", message)


def _operations(objects: Objects, key: Key, target: TrafficTarget) -> Iterator[Operations]:
    tcp, http = _tcp_ports(objects, key, target), tuple(_requests(objects, key, target))
    kinds = {rule.kind for rule in target.spec.rules}
    if "HTTPRouteGroup" in kinds:
        if tcp is not None:
            for each in http:
                yield replace(each, ports=tcp)
    elif "TCPRoute" in kinds and tcp is not None:
        yield Operations(tcp)
    for number, rule in enumerate(target.spec.rules):
        if rule.kind == "UDPRoute":
            if (route := objects.udp.get(rule.name)) is None:
                message = f"UDPRoute {rule.name} doesn't exist: it lets nothing through until it does"
                objects.miss(key, f"spec.rules[{number}].name", message)
                continue
            ports = _narrowed(tuple(sorted(set(route.spec.matches.ports))), target.port)
            if ports is not None and _named(rule.matches, route.spec.matches.name):
                yield Operations(ports, protocol="udp")
            message = "proxies carry no datagrams: the network decides about UDP, whatever a target says"
            objects.notices.append(Notice(key, f"spec.rules[{number}]", "NotEnforced", message))


def _tcp_ports(objects: Objects, key: Key, target: TrafficTarget) -> tuple[int, ...] | None:
    """Return the ports that TCPRoutes leave open, none for all; None: nothing is open."""
    ports: set[int] = set()
    every = not any(rule.kind == "TCPRoute" for rule in target.spec.rules)
    found = every
    for number, rule in enumerate(target.spec.rules):
        if rule.kind != "TCPRoute":
            continue
        route = objects.tcp.get(rule.name)
        if route is None:
            message = f"TCPRoute {rule.name} doesn't exist: it lets nothing through until it does"
            objects.miss(key, f"spec.rules[{number}].name", message)
        elif not _named(rule.matches, route.spec.matches.name):
            message = f"TCPRoute {rule.name} has no match of this name: it lets nothing through until it has"
            objects.miss(key, f"spec.rules[{number}].matches", message)
        else:
            found = True
            every = every or not route.spec.matches.ports
            ports |= set(route.spec.matches.ports)
    return _narrowed(() if every else tuple(sorted(ports)), target.port) if found else None


def _named(wanted: list[str] | None, name: str | None) -> bool:
    return not wanted or name in wanted


def _narrowed(ports: tuple[int, ...], port: int | None) -> tuple[int, ...] | None:
    """Return the ports (none: all) that a destination's port leaves; None: it leaves none."""
    if port is None:
        return ports
    return (port,) if not ports or port in ports else None


def _requests(objects: Objects, key: Key, target: TrafficTarget) -> Iterator[Operations]:
    for number, rule in enumerate(target.spec.rules):
        if rule.kind == "HTTPRouteGroup":
            field, consequence = f"spec.rules[{number}]", "it lets nothing through"
            for match in objects.matches(rule.name, rule.matches, key, field, consequence=consequence):
                condition = path(match)
                paths = (condition,) if condition else ()
                yield Operations(methods=methods(match), paths=paths, headers=headers(match), requests=True)
