"""Which proxies have the same: a caller is what of a workload decides about the routes and clusters that it has.

One decision to know: conditions on callers are decided here, when resources are made. Resources are made once for each
set of conditions that some workload fulfils, and at first need; in most meshes there are no conditions, and all
proxies of a namespace are one caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, NamedTuple, TypeVar

from meshwright.manager.model.claims import ANYBODY, Spoken
from meshwright.manager.model.domain import host_of
from meshwright.manager.model.mesh import Area
from meshwright.manager.model.routing import CallerMatch
from meshwright.manager.model.traffic import TrafficPolicy

T = TypeVar("T")


class Caller(NamedTuple):
    """A caller's namespace, and those of the mesh's conditions that it fulfils."""

    namespace: str = ANYBODY
    fulfils: frozenset[CallerMatch] = frozenset()

    def is_any(self, conditions: Iterable[CallerMatch | None]) -> bool:
        """Whether one of the conditions is fulfilled; None always is."""
        return any(condition is None or condition in self.fulfils for condition in conditions)


def caller(area: Area, workload: str, conditions: Iterable[CallerMatch]) -> Caller:
    """Return what a workload is as a caller, as far as `conditions` tell."""
    return Caller(area.namespace, frozenset(each for each in conditions if _fulfils(area, workload, each)))


def _fulfils(area: Area, workload: str, condition: CallerMatch) -> bool:
    found = area.workloads[workload]
    return (
        condition.namespace in ("", area.namespace)
        and condition.service_account in ("", found.service_account)
        and all(found.labels.get(key) == value for key, value in condition.labels)
        and (
            not condition.service
            or any(host_of(name, area.namespace) == condition.service for name in area.services_of.get(workload, ()))
        )
    )


def for_whom(policy: TrafficPolicy) -> CallerMatch | None:
    """Return the condition under which a policy holds; None: always."""
    if not (policy.callers or policy.caller_service):
        return None
    return CallerMatch(labels=policy.callers, service=policy.caller_service)


def conditions(spoken: Spoken) -> frozenset[CallerMatch]:
    """Return all conditions on callers in what is said of a service."""
    return frozenset(_conditions(spoken))


def _conditions(spoken: Spoken) -> Iterator[CallerMatch]:
    for _, routes in spoken.claims:
        for route in routes.all:
            yield from (match.callers for match in route.matches if match.callers)
    for _, policy in spoken.advice:
        if (condition := for_whom(policy)) is not None:
            yield condition


class Variants(Generic[T]):
    """What different callers have instead of one another, each made when the first asks for it.

    `namespaces` are those whose callers may have something of their own, `matter` the conditions that decide.
    """

    __slots__ = ("_found", "_make", "matter", "namespaces")

    def __init__(self, namespaces: frozenset[str], matter: frozenset[CallerMatch], make: Callable[[Caller], T]) -> None:
        self.namespaces, self.matter, self._make = namespaces, matter, make
        self._found: dict[Caller, T] = {}

    def of(self, who: Caller) -> T:
        """Return what a caller has."""
        key = narrowed(who, self.namespaces, self.matter)
        if key not in self._found:
            self._found[key] = self._make(key)
        return self._found[key]


def narrowed(who: Caller, namespaces: frozenset[str], matter: frozenset[CallerMatch]) -> Caller:
    """Return a caller as one of those for whom something differs."""
    return Caller(who.namespace if who.namespace in namespaces else ANYBODY, who.fulfils & matter)


def union(all_variants: Iterable[Mapping[str, Variants[T]]]) -> tuple[frozenset[str], frozenset[CallerMatch]]:
    """Return the namespaces and conditions that decide about anything."""
    namespaces: set[str] = set()
    matter: set[CallerMatch] = set()
    for by_name in all_variants:
        for variants in by_name.values():
            namespaces |= variants.namespaces
            matter |= variants.matter
    return frozenset(namespaces), frozenset(matter)
