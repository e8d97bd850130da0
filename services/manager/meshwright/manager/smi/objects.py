"""A namespace's objects of SMI, by kind and name, and what their route groups match."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from meshwright.core.config import Key
from meshwright.manager.model.meaning import Context, Notice
from meshwright.manager.model.parse import Parsed
from meshwright.manager.model.routing import Text, TextMatch
from meshwright.manager.smi.http_route_group import HTTPRouteGroup, Match
from meshwright.manager.smi.identity_binding import IdentityBinding
from meshwright.manager.smi.port_routes import TCPRoute, UDPRoute
from meshwright.manager.smi.traffic_split import TrafficSplit
from meshwright.manager.smi.traffic_target import TrafficTarget

MISSING = "RefNotFound"


@dataclass(frozen=True, slots=True)
class Objects:
    """All of them; splits and targets in the order of their names. `notices` is where translators put theirs."""

    context: Context
    targets: tuple[tuple[Key, TrafficTarget], ...]
    splits: tuple[tuple[Key, TrafficSplit], ...]
    bindings: Mapping[str, tuple[Key, IdentityBinding]]
    groups: Mapping[str, HTTPRouteGroup]
    tcp: Mapping[str, TCPRoute]
    udp: Mapping[str, UDPRoute]
    notices: list[Notice] = field(default_factory=list)

    def matches(
        self, group: str, names: Iterable[str] | None, key: Key, field: str, *, consequence: str
    ) -> Iterator[Match]:
        """Yield a group's matches of these names (None: all); tell of what isn't there."""
        found = self.groups.get(group)
        if found is None:
            self.miss(key, f"{field}.name", f"HTTPRouteGroup {group} doesn't exist: {consequence} until it does")
            return
        by_name = {match.name: match for match in found.spec.matches}
        for number, name in enumerate(names or ()):
            if name not in by_name:
                message = f"HTTPRouteGroup {group} has no match {name}: {consequence} until it has"
                self.miss(key, f"{field}.matches[{number}]", message)
        yield from (match for name, match in by_name.items() if not names or name in names)

    def miss(self, key: Key, field: str, message: str) -> None:
        """Tell of a reference that leads nowhere."""
        self.notices.append(Notice(key, field, MISSING, message))


def sort(members: Iterable[Parsed], context: Context) -> Objects:
    """Return the objects of SMI among all of a namespace."""
    by_kind: dict[type[Any], dict[str, tuple[Key, Any]]] = {}
    for parsed in sorted(members, key=lambda parsed: parsed.key):
        by_kind.setdefault(type(parsed.document), {})[parsed.key.name] = (parsed.key, parsed.document)

    def documents(kind: type[Any]) -> dict[str, Any]:
        return {name: document for name, (_, document) in by_kind.get(kind, {}).items()}

    return Objects(
        context,
        tuple(by_kind.get(TrafficTarget, {}).values()),
        tuple(by_kind.get(TrafficSplit, {}).values()),
        by_kind.get(IdentityBinding, {}),
        documents(HTTPRouteGroup),
        documents(TCPRoute),
        documents(UDPRoute),
    )


def path(match: Match) -> TextMatch | None:
    """Return a match's condition on the path. SMI anchors the expression at the path's beginning and not at its end."""
    pattern = match.path_regex
    return None if pattern in (None, "", ".*", "/", "/.*") else TextMatch(Text.REGEX, f"(?:{pattern}).*")


def methods(match: Match) -> tuple[str, ...]:
    """Return the methods of a match; none for any."""
    found = match.methods or ()
    return () if "*" in found else tuple(sorted(set(found)))


def headers(match: Match) -> tuple[tuple[str, TextMatch], ...]:
    """Return conditions on headers; an expression is about a header's whole value."""
    found = {name.lower(): TextMatch(Text.REGEX, value) for name, value in (match.headers or {}).items()}
    if "host" in found:
        found[":authority"] = found.pop("host")
    return tuple(sorted(found.items(), key=lambda each: each[0]))
