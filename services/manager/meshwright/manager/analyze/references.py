"""MW101–MW104: names that lead nowhere, parts of objects that have no effect, and objects in each other's way."""

from __future__ import annotations

from collections.abc import Iterator

from meshwright.manager.analyze.finding import Finding, Severity, Subject
from meshwright.manager.model.notices import CONFLICTED, notices
from meshwright.manager.model.routing import MESH, Destination, HttpRoute, Routes

_REFERENCES = frozenset(("RefNotFound", "BackendNotFound", "RefNotPermitted", "InvalidKind"))


def noticed(subject: Subject) -> Iterator[Finding]:
    """Find what statuses tell too: unknown hosts and ports, conflicts, and fields without effect."""
    for notice in notices(subject.mesh, subject.objects.keys()):
        where = notice.key, notice.field, notice.message
        if notice.reason == CONFLICTED:
            remedy = "keep one, or give them different hosts, ports or callers (docs/adr/0054)"
            yield Finding("MW401", Severity.WARNING, *where, remedy)
        elif notice.reason in _REFERENCES:
            yield Finding("MW101", Severity.ERROR, *where, "correct the name, or apply what it names")
        else:
            yield Finding("MW402", Severity.WARNING, *where, "leave it out, or say it another way")


def subsets(subject: Subject) -> Iterator[Finding]:
    """Find routes to subsets that no policy of the host defines."""
    known: set[tuple[str, str]] = set()
    for area in subject.mesh.areas.values():
        for policy in area.meaning.policies:
            known |= {(policy.host, subset.name) for subset in policy.subsets}
    for routes in _all_routes(subject):
        for route in routes.all:
            for backend in route.backends:
                missing = _missing(backend.destination, known)
                if missing and route.origin in subject.objects:
                    remedy = f"define the subset in a DestinationRule of {backend.destination.host}"
                    yield Finding("MW102", Severity.ERROR, route.origin, backend.field, missing, remedy)


def gateways(subject: Subject) -> Iterator[Finding]:
    """Find routes for gateways that don't exist."""
    known = {gateway.reference for area in subject.mesh.areas.values() for gateway in area.meaning.gateways}
    for routes in _all_routes(subject):
        named = {MESH, *routes.gateways}
        named |= {name for route in routes.http for match in route.matches for name in match.gateways}
        for name in sorted(named - known - {MESH}):
            for key in sorted(routes.origins & subject.objects.keys()):
                message = f"gateway {name} doesn't exist: requests that come in elsewhere aren't routed by this"
                yield Finding("MW103", Severity.ERROR, key, "spec.gateways", message, "name a Gateway, or apply it")


def silent(subject: Subject) -> Iterator[Finding]:
    """Find routes that answer every request with an error because they lead nowhere."""
    for routes in _all_routes(subject):
        for route in routes.http:
            if route.origin in subject.objects and _leads_nowhere(route):
                message = f"the route {route.name} of {routes.host} names nobody who answers: its requests get 500"
                yield Finding(
                    "MW104",
                    Severity.ERROR,
                    route.origin,
                    "",
                    message.replace("  ", " "),
                    "name a backend with a weight",
                )


def _leads_nowhere(route: HttpRoute) -> bool:
    if route.redirect is not None or route.response is not None:
        return False
    return not route.backends


def _missing(destination: Destination, known: set[tuple[str, str]]) -> str:
    if not destination.subset or (destination.host, destination.subset) in known:
        return ""
    return f"{destination.host} has no subset {destination.subset}: requests to it fail"


def _all_routes(subject: Subject) -> Iterator[Routes]:
    for area in subject.mesh.areas.values():
        yield from area.meaning.routes
