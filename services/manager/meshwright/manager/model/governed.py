"""What is enforced at workloads: the rules of their own namespace and of the root namespace, references resolved.

One decision to know: a name for callers (`Binding`) becomes identities and addresses here, once for the mesh, so that a
pod that comes or goes changes the rules of exactly those namespaces that speak of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from meshwright.core.spiffe import workload_id
from meshwright.manager.model.access import Access, Bound, PeerRule, TokenRule

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
        )


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
    if not (access or peers or tokens):
        return FREE
    wanted = sorted(set(_references(access)))
    bound = {reference: _bound(areas, reference, trust_domain) for reference in wanted}
    return Governed(access, peers, tokens, bound)


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
