"""MW201: routes that no request reaches, because one before them takes all of theirs.

One decision to know: a condition counts as implied only where that is certain (texts and their beginnings are compared,
regular expressions only for equality), so that what is reported is never reached indeed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from meshwright.manager.analyze.finding import Finding, Severity, Subject
from meshwright.manager.model.claims import ANYBODY
from meshwright.manager.model.routing import MESH, CallerMatch, HttpMatch, HttpRoute, Text, TextMatch

_ANY = HttpMatch()
_MATCHES = 5_000  # of one host, compared with each other; more are not looked at


def shadowed(subject: Subject) -> Iterator[Finding]:
    """Find routes behind others that take all their requests."""
    told: set[tuple[object, str]] = set()
    for host, routes in _tried(subject):
        if sum(len(route.matches) or 1 for route in routes) > _MATCHES:
            continue
        for later, route in enumerate(routes):
            earlier = taken_by(routes[:later], route)
            sign = route.origin, f"{host}{later}"
            if earlier is None or sign in told or route.origin not in subject.objects:
                continue
            told.add(sign)
            message = f"route {_name(route, later)} of {host} is never reached: {_name(earlier, routes.index(earlier))}"
            message += f" of {earlier.origin}" if earlier.origin != route.origin else ""
            message += " takes all its requests before"
            remedy = "put the narrower route first, or delete this one"
            yield Finding("MW201", Severity.WARNING, route.origin, "", message, remedy)


def taken_by(earlier: Sequence[HttpRoute], route: HttpRoute) -> HttpRoute | None:
    """Return the last of the routes that together take every request of `route`; None when some request is left."""
    last = -1
    for match in route.matches or (_ANY,):
        number = next(
            (place for place, one in enumerate(earlier) if any(covers(each, match) for each in one.matches or (_ANY,))),
            None,
        )
        if number is None:
            return None
        last = max(last, number)
    return earlier[last] if last >= 0 else None


def covers(wide: HttpMatch, narrow: HttpMatch) -> bool:
    """Whether every request that fulfils `narrow` fulfils `wide`."""
    return (
        _path_implied(wide.path, narrow.path)
        and (not wide.methods or (bool(narrow.methods) and {*narrow.methods} <= {*wide.methods}))
        and _all_implied(wide.headers, narrow.headers)
        and _all_implied(wide.query, narrow.query)
        and _implied(wide.authority, narrow.authority)
        and _implied(wide.scheme, narrow.scheme)
        and wide.port in (None, narrow.port)
        and _callers_implied(wide.callers, narrow.callers)
        and (not wide.gateways or (bool(narrow.gateways) and {*narrow.gateways} <= {*wide.gateways}))
    )


def _tried(subject: Subject) -> Iterator[tuple[str, tuple[HttpRoute, ...]]]:
    """Yield the routes that are tried after one another: of services by port, of gateways by object."""
    for area in subject.mesh.areas.values():
        for service in area.services.values():
            spoken = area.said_of(service.name)
            for routes in {spoken.http(port.number, ANYBODY) for port in service.ports}:
                yield service.host, routes
        for stated in area.meaning.routes:
            if MESH not in stated.gateways:
                yield stated.host, stated.http


def _name(route: HttpRoute, place: int) -> str:
    return route.name or f"#{place + 1}"


def _path_implied(wide: TextMatch | None, narrow: TextMatch | None) -> bool:
    everything = wide is not None and wide.kind in (Text.PREFIX, Text.SEGMENTS) and wide.value in ("", "/")
    return (everything and wide is not None and not wide.negated) or _implied(wide, narrow)


def _all_implied(wide: Sequence[tuple[str, TextMatch]], narrow: Sequence[tuple[str, TextMatch]]) -> bool:
    return all(any(name == other and _implied(text, found) for other, found in narrow) for name, text in wide)


def _implied(wide: TextMatch | None, narrow: TextMatch | None) -> bool:
    if wide is None or wide == narrow:
        return True
    if narrow is None or wide.negated or narrow.negated:
        return False
    if wide.kind is Text.PRESENT:
        return True
    if narrow.ignore_case and not wide.ignore_case:
        return False
    known, found = wide.value, narrow.value
    if wide.ignore_case:
        known, found = known.lower(), found.lower()
    match wide.kind:
        case Text.EXACT:
            return narrow.kind is Text.EXACT and known == found
        case Text.PREFIX:
            return narrow.kind in (Text.EXACT, Text.PREFIX, Text.SEGMENTS) and found.startswith(known)
        case Text.SEGMENTS:
            inside = found.startswith(known.rstrip("/") + "/")
            return (
                inside
                if narrow.kind is Text.PREFIX
                else (narrow.kind in (Text.EXACT, Text.SEGMENTS) and (inside or found == known))
            )
        case Text.SUFFIX:
            return narrow.kind in (Text.EXACT, Text.SUFFIX) and found.endswith(known)
    return False


def _callers_implied(wide: CallerMatch | None, narrow: CallerMatch | None) -> bool:
    if wide is None:
        return True
    return narrow is not None and (
        wide.namespace in ("", narrow.namespace)
        and {*wide.labels} <= {*narrow.labels}
        and wide.service_account in ("", narrow.service_account)
        and wide.service in ("", narrow.service)
    )
