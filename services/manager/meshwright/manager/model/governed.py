"""What is enforced at workloads: the rules of their own namespace and of the root namespace, references resolved.

One decision to know: a name for callers (`Binding`) becomes identities and addresses here, once for the mesh, so that a
pod that comes or goes changes the rules of exactly those namespaces that speak of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from meshwright.core.spiffe import workload_id
from meshwright.manager.model.access import Access, Bound, PeerRule, PeerTls, TokenRule
from meshwright.manager.model.observing import Observing

if TYPE_CHECKING:
    from meshwright.manager.model.mesh import Area, Workload

Reference = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Governed:
    """All rules that may be for a namespace's workloads. Rules of the root namespace come after its own."""

    access: tuple[Access, ...] = ()
    peers: tuple[PeerRule, ...] = ()
    tokens: tuple[TokenRule, ...] = ()
    bound: Mapping[Reference, Bound] = field(default_factory=dict)
    observed: tuple[Observing, ...] = ()

    def of(self, workload: Workload) -> Governed:
        """Return those that select a workload."""
        if self is FREE:
            return self
        return replace(
            self,
            access=tuple(
                each
                for each in self.access
                if _selects(each.selector, workload)
                and (not each.accounts or workload.service_account in each.accounts)
            ),
            peers=tuple(each for each in self.peers if _selects(each.selector, workload)),
            tokens=tuple(each for each in self.tokens if _selects(each.selector, workload)),
            observed=tuple(each for each in self.observed if _selects(each.selector, workload)),
        )

    def mode(self, port: int, default: PeerTls) -> PeerTls:
        """Return what a port takes: rules for some workloads come first, then the namespace's, then the root's."""
        for rule in sorted(self.peers, key=lambda rule: not rule.selector):
            ports = dict(rule.ports)
            if port in ports:
                return ports[port]
            if rule.mode is not None:
                return rule.mode
        return default

    def traced(self, default: float, *, inbound: bool) -> float:
        """Return the share of requests that are traced, in percent; rules for some workloads come first."""
        for rule in sorted(self.observed, key=lambda rule: not rule.selector):
            share = rule.inbound if inbound else rule.outbound
            if share is not None:
                return share
        return default


FREE = Governed()


def _selects(selector: tuple[tuple[str, str], ...], workload: Workload) -> bool:
    return all(workload.labels.get(key) == value for key, value in selector)


def govern(areas: Mapping[str, Area], namespace: str, root: str, trust_domain: str) -> Governed:
    """Return what is enforced in a namespace."""
    own = areas[namespace].meaning
    of_root = areas[root].meaning if root in areas and root != namespace else None
    access = (*own.access, *(each for each in of_root.access if not each.accounts)) if of_root else own.access
    peers = (*own.peers, *of_root.peers) if of_root else own.peers
    tokens = (*own.tokens, *of_root.tokens) if of_root else own.tokens
    observed = (*own.observed, *of_root.observed) if of_root else own.observed
    if not (access or peers or tokens or observed):
        return FREE
    wanted = sorted(set(_references(access)))
    bound = {reference: _bound(areas, reference, trust_domain) for reference in wanted}
    return Governed(access, peers, tokens, bound, observed)


def plain(area: Area) -> frozenset[tuple[str, int]]:
    """Return the addresses and ports of a namespace whose proxies take plain text only, so that callers speak it."""
    modes = {mode for rule in area.governed.peers for mode in (rule.mode, *(mode for _, mode in rule.ports))}
    if PeerTls.DISABLED not in modes:
        return frozenset()
    found = set()
    for workload in area.workloads.values():
        governed = area.governed.of(workload)
        for name in area.services_of.get(workload.name, ()):
            for port in area.services[name].ports:
                number = workload.target(port)
                if number is not None and governed.mode(number, PeerTls.STRICT) is PeerTls.DISABLED:
                    found.add((workload.address, number))
    return frozenset(found)


def _references(access: Iterable[Access]) -> Iterator[Reference]:
    for each in access:
        for rule in each.rules:
            for callers in rule.callers:
                yield from callers.bindings


def _bound(areas: Mapping[str, Area], reference: Reference, trust_domain: str) -> Bound:
    area = areas.get(reference[0])
    found = next((each for each in area.meaning.bindings if each.name == reference[1]), None) if area else None
    if area is None or found is None:
        return Bound()
    accounts = (workload_id(trust_domain, found.namespace, account) for account in found.accounts)
    workloads = {
        (workload_id(trust_domain, workload.namespace, workload.service_account), workload.address)
        for workload in area.workloads.values()
        if found.labels and _selects(found.labels, workload)
    }
    return Bound((*found.identities, *accounts), tuple(sorted(workloads)))
