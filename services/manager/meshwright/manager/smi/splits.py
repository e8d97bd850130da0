"""TrafficSplits as routes.

One decision to know: splits of one root service are tried in the order of their names, those with `matches` before the
one without; what none of them matches goes to the root itself. Two with the same matches claim the same thing: the
first by name has it (SMI §Traffic Split).
"""

from __future__ import annotations

from collections.abc import Iterator

from meshwright.core.config import Key
from meshwright.manager.model.domain import host_of
from meshwright.manager.model.meaning import Notice
from meshwright.manager.model.routing import (
    Backend,
    ConnectionRoute,
    Destination,
    Dialect,
    HttpMatch,
    HttpRoute,
    Routes,
)
from meshwright.manager.smi.objects import Objects, headers, methods, path
from meshwright.manager.smi.traffic_split import TrafficSplit


def translate(objects: Objects) -> Iterator[Routes]:
    """Yield the routes of each root service."""
    by_root: dict[str, dict[frozenset[str], tuple[Key, TrafficSplit]]] = {}
    for key, split in objects.splits:
        claimed = by_root.setdefault(split.root, {})
        if split.groups in claimed:
            other = claimed[split.groups][0].name
            message = f"service {split.root} is already split by {other}: change that one, or delete it"
            objects.notices.append(Notice(key, "spec.service", "Conflicted", message))
        else:
            claimed[split.groups] = (key, split)
    for root, splits in by_root.items():
        host = host_of(root, objects.context.namespace)
        yield Routes(
            host,
            Dialect.TRAFFIC_SPLIT,
            tuple(_requests(objects, host, splits)),
            tuple(_connections(objects, splits)),
            field="spec.service",
        )


def _requests(
    objects: Objects, host: str, splits: dict[frozenset[str], tuple[Key, TrafficSplit]]
) -> Iterator[HttpRoute]:
    for key, split in splits.values():
        if split.groups and (matches := tuple(_matches(objects, key, split))):
            yield HttpRoute(key, matches=matches, backends=tuple(_backends(split, objects.context.namespace)))
    if frozenset() in splits:
        key, split = splits[frozenset()]
        yield HttpRoute(key, backends=tuple(_backends(split, objects.context.namespace)))
    else:
        key, _ = next(iter(splits.values()))
        yield HttpRoute(key, name="the rest", backends=(Backend(Destination(host)),))


def _connections(objects: Objects, splits: dict[frozenset[str], tuple[Key, TrafficSplit]]) -> Iterator[ConnectionRoute]:
    """Split connections as well, by bytes; only requests can match."""
    if frozenset() in splits:
        key, split = splits[frozenset()]
        yield ConnectionRoute(key, backends=tuple(_backends(split, objects.context.namespace)))


def _matches(objects: Objects, key: Key, split: TrafficSplit) -> Iterator[HttpMatch]:
    told: set[str] = set()
    for number, group in enumerate(split.spec.matches):
        if group.name in told:
            continue
        told.add(group.name)
        consequence = "none of its requests are split"
        for match in objects.matches(group.name, None, key, f"spec.matches[{number}]", consequence=consequence):
            yield HttpMatch(path(match), methods(match), headers(match))


def _backends(split: TrafficSplit, namespace: str) -> Iterator[Backend]:
    for number, backend in enumerate(split.spec.backends):
        destination = Destination(host_of(backend.service, namespace))
        yield Backend(destination, backend.weight, missing=True, field=f"spec.backends[{number}].service")
