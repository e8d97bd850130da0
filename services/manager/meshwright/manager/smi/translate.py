"""What SMI's objects mean, in the words of the inner model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from meshwright.manager.model.domain import host_of
from meshwright.manager.model.meaning import Context, Meaning, Notice
from meshwright.manager.model.parse import Parsed
from meshwright.manager.model.routing import Backend, ConnectionRoute, Destination, Dialect, HttpRoute, Routes
from meshwright.manager.smi.traffic_split import TrafficSplit


def translate(members: Iterable[Parsed], context: Context) -> Meaning:
    """Translate a namespace's objects. Of two splits of one service the first by name is in force."""
    found = sorted((each for each in members if isinstance(each.document, TrafficSplit)), key=lambda each: each.key)
    routes: dict[str, Routes] = {}
    notices: list[Notice] = []
    for parsed in found:
        assert isinstance(parsed.document, TrafficSplit)
        host = host_of(parsed.document.root, context.namespace)
        if host in routes:
            [other] = routes[host].origins
            message = f"service {parsed.document.root} is already split by {other.name}: change that one, or delete it"
            notices.append(Notice(parsed.key, "spec.service", "Conflicted", message))
            continue
        backends = tuple(_backends(parsed.document, context.namespace))
        routes[host] = Routes(
            host,
            Dialect.TRAFFIC_SPLIT,
            (HttpRoute(parsed.key, backends=backends),),
            (ConnectionRoute(parsed.key, backends=backends),),
            field="spec.service",
        )
    return Meaning(tuple(routes.values()), notices=tuple(notices))


def _backends(split: TrafficSplit, namespace: str) -> Iterator[Backend]:
    for number, backend in enumerate(split.spec.backends):
        destination = Destination(host_of(backend.service, namespace))
        yield Backend(destination, backend.weight, missing=True, field=f"spec.backends[{number}].service")
