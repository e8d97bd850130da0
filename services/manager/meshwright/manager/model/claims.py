"""Whose word about a host holds for whom: what all namespaces say of it, in the order in which it is believed.

One decision to know: of one port's routes exactly one namespace of one dialect has the say, and all that it says is
tried in its order; nothing of two is mixed. The dialect decides first (`routing.Dialect`); within one the caller's own
namespace, which is asked by no other caller; then the host's; then the first by name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from meshwright.core.config import Key
from meshwright.manager.model.domain import service_of
from meshwright.manager.model.meaning import Meaning, Notice
from meshwright.manager.model.routing import MESH, ConnectionRoute, HttpRoute, Routes
from meshwright.manager.model.traffic import TrafficPolicy

Labels = tuple[tuple[str, str], ...]
OUTSIDE = ""
"""Stands for the namespace of hosts that are no services of the mesh."""
ANYBODY = ""
"""The caller's namespace of all those that nothing special is said for."""


@dataclass(frozen=True, slots=True)
class Said:
    """What the objects of one namespace say of another's hosts, or of its own.

    `groups` are workloads of a host that some route leads to by their labels.
    """

    routes: tuple[Routes, ...] = ()
    policies: tuple[TrafficPolicy, ...] = ()
    groups: frozenset[tuple[str, Labels]] = frozenset()


class Claim(NamedTuple):
    """Routes for a host, and the namespace whose objects they are from."""

    speaker: str
    routes: Routes


class Advice(NamedTuple):
    """A policy for a host, and the namespace that it is from."""

    speaker: str
    policy: TrafficPolicy


@dataclass(frozen=True, slots=True)
class Spoken:
    """All that is said of one service."""

    owner: str  # its namespace
    claims: tuple[Claim, ...] = ()
    advice: tuple[Advice, ...] = ()
    groups: frozenset[Labels] = frozenset()

    def audiences(self) -> frozenset[str]:
        """Return the callers' namespaces for which something else may hold than for `ANYBODY`."""
        exported = [claim.routes.exported for claim in self.claims]
        exported += [advice.policy.exported for advice in self.advice]
        named = frozenset().union(*(names for names in exported if names is not None))
        return named | {speaker for speaker, _ in (*self.claims, *self.advice) if speaker != self.owner}

    def http(self, port: int, caller: str) -> tuple[HttpRoute, ...]:
        """Return the routes of requests to a port, in the order in which they are tried."""
        found = (claim for claim in self.claims if claim.routes.http)
        return tuple(route for claim in self._first(found, port, caller) for route in claim.routes.http)

    def connections(self, port: int, caller: str) -> tuple[ConnectionRoute, ...]:
        """Return the routes of connections to a port, in the order in which they are tried."""
        found = (claim for claim in self.claims if claim.routes.connections)
        return tuple(route for claim in self._first(found, port, caller) for route in claim.routes.connections)

    def policies(self, caller: str) -> tuple[TrafficPolicy, ...]:
        """Return the policies that hold, each over those after it: the caller's, the host's, others'."""
        found = [advice for advice in self.advice if _told(advice.policy.exported, caller)]
        return tuple(advice.policy for advice in sorted(found, key=lambda each: self._nearness(each.speaker, caller)))

    def conflicts(self, host: str, ports: Iterable[int]) -> Iterator[Notice]:
        """Tell of routes that have no effect on some port for some callers, and of those that have it instead."""
        if len(self.claims) < 2:
            return
        for port in ports:
            for caller in sorted({ANYBODY, *self.audiences()}):
                for kind in ("http", "connections"):
                    found = [claim for claim in self.claims if getattr(claim.routes, kind)]
                    first = self._first(found, port, caller)
                    if not first or first[0].speaker == caller != self.owner:
                        continue  # what a namespace says for itself alone takes nothing from anybody
                    told = [claim for claim in found if _told(claim.routes.exported, caller)]
                    others = [claim for claim in told if _for(claim, port) and claim not in first]
                    yield from _clash(host, port, first, others)

    def _first(self, claims: Iterable[Claim], port: int, caller: str) -> tuple[Claim, ...]:
        def rank(claim: Claim) -> tuple[int, int, str]:
            return claim.routes.dialect, *self._nearness(claim.speaker, caller)

        found = sorted((each for each in claims if _told(each.routes.exported, caller) and _for(each, port)), key=rank)
        for _, first in groupby(found, rank):
            return tuple(first)
        return ()

    def _nearness(self, speaker: str, caller: str) -> tuple[int, str]:
        return (0 if speaker == caller else 1 if speaker == self.owner else 2), speaker


def _told(exported: frozenset[str] | None, caller: str) -> bool:
    return exported is None or caller in exported


def _for(claim: Claim, port: int) -> bool:
    return claim.routes.ports is None or port in claim.routes.ports


def _clash(host: str, port: int, first: Iterable[Claim], others: Iterable[Claim]) -> Iterator[Notice]:
    winners = sorted({origin for claim in first for origin in claim.routes.origins})
    losers = sorted({origin for claim in others for origin in claim.routes.origins} - {*winners})
    names = _names(winners)
    for key in losers:
        yield Notice(key, "", "Conflicted", f"has no effect on {host} port {port}: {names} comes first")
    if losers:
        for key in winners:
            yield Notice(key, "", "Conflicted", f"takes the place of {_names(losers)} on {host} port {port}")


def _names(keys: list[Key]) -> str:
    return ", ".join(map(str, keys[:3])) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def spread(meaning: Meaning) -> Mapping[str, Said]:
    """Return what is said, by the namespace of the services that it is about. What gateways alone have stays out."""
    routes: dict[str, list[Routes]] = {}
    policies: dict[str, list[TrafficPolicy]] = {}
    groups: dict[str, set[tuple[str, Labels]]] = {}
    for each in meaning.routes:
        for destination in each.destinations:
            led_to = service_of(destination.host)
            if led_to and destination.labels:
                groups.setdefault(led_to[0], set()).add((led_to[1], destination.labels))
        if MESH in each.gateways:
            routes.setdefault(_owner(each.host), []).append(each)
    for policy in meaning.policies:
        policies.setdefault(_owner(policy.host), []).append(policy)
    return {
        owner: Said(tuple(routes.get(owner, ())), tuple(policies.get(owner, ())), frozenset(groups.get(owner, ())))
        for owner in sorted({*routes, *policies, *groups})
    }


def _owner(host: str) -> str:
    service = service_of(host)
    return service[0] if service else OUTSIDE


def outside(owner: str, hosts: Collection[str], heard: Mapping[str, Said]) -> Mapping[str, Spoken]:
    """Return what is said of a namespace's external hosts; `heard` is what is said of all, by who says it."""
    found = {}
    for host in sorted(hosts):
        claims = (Claim(who, each) for who in sorted(heard) for each in heard[who].routes if each.host == host)
        advice = (Advice(who, each) for who in sorted(heard) for each in heard[who].policies if each.host == host)
        found[host] = Spoken(owner, tuple(claims), tuple(advice))
    return found


def gather(owner: str, heard: Mapping[str, Said]) -> Mapping[str, Spoken]:
    """Return all that is said of a namespace's services, by their names; `heard` is by the namespace that says it."""
    claims: dict[str, list[Claim]] = {}
    advice: dict[str, list[Advice]] = {}
    groups: dict[str, set[Labels]] = {}
    for speaker in sorted(heard):
        said = heard[speaker]
        for routes in said.routes:
            if service := service_of(routes.host):
                claims.setdefault(service[1], []).append(Claim(speaker, routes))
        for policy in said.policies:
            if service := service_of(policy.host):
                advice.setdefault(service[1], []).append(Advice(speaker, policy))
        for name, labels in said.groups:
            groups.setdefault(name, set()).add(labels)
    return {
        name: Spoken(owner, tuple(claims.get(name, ())), tuple(advice.get(name, ())), frozenset(groups.get(name, ())))
        for name in {*claims, *advice, *groups}
    }
