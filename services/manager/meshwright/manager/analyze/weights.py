"""MW301–MW303: shares of requests that are probably not meant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from meshwright.manager.analyze.finding import Finding, Severity, Subject
from meshwright.manager.model.routing import Backend, Routes


def shares(subject: Subject) -> Iterator[Finding]:
    """Find backends that get nothing, routes whose backends all get nothing, and backends that are named twice."""
    for area in subject.mesh.areas.values():
        for routes in area.meaning.routes:
            for route in routes.all:
                if route.origin in subject.objects and route.backends:
                    yield from (
                        Finding(code, severity, route.origin, field, message, remedy)
                        for code, severity, field, message, remedy in _of(routes, route.backends)
                    )


def _of(routes: Routes, backends: tuple[Backend, ...]) -> Iterator[tuple[str, Severity, str, str, str]]:
    if not any(backend.weight for backend in backends):
        message = f"all backends of {routes.host} have weight 0: its requests fail"
        yield "MW302", Severity.ERROR, backends[0].field, message, "give one of them a weight"
        return
    for backend in backends:
        if not backend.weight:
            message = f"{backend.destination.host} has weight 0 and gets nothing"
            yield "MW301", Severity.INFO, backend.field, message, "leave it out, or give it a weight"
    counted = Counter(backend.destination for backend in backends)
    for destination, count in counted.items():
        if count > 1:
            message = f"{destination.host} is named {count} times: its shares add up"
            yield "MW303", Severity.WARNING, backends[-1].field, message, "name it once, with the sum of the weights"
