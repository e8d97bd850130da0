"""Which endpoints of a network service fit a client, in the order to try them.

Matches are tried in order; the first whose source selector is in the client's labels decides, unless it falls through
because no endpoint fits. Unlike the original, `weight` is honoured: a route is drawn by its share.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence

from meshwright.nsm.wire import Destination, Match, NetworkService, NetworkServiceEndpoint

_TEMPLATE = re.compile(r"\{\{\s*\.(?:([A-Za-z_][A-Za-z0-9_]*)|index\s+\.\s+\"([^\"]*)\")\s*\}\}")


def candidates(
    service: NetworkService,
    endpoints: Sequence[NetworkServiceEndpoint],
    labels: Mapping[str, str],
    chance: random.Random,
) -> list[NetworkServiceEndpoint]:
    """Return the fitting endpoints, best first, each once."""
    if not service.matches:
        return _shuffled(endpoints, chance)
    for match in service.matches:
        if not _selects(match.source_selector, labels, labels):
            continue
        found = _of_match(service.name, match, endpoints, labels, chance)
        if found or not match.fallthrough:
            return found
    return []


def forwarder_labels(service: NetworkService, labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels that the forwarder must have: those of the client's match, or the original's p2p."""
    for match in service.matches:
        if match.HasField("metadata") and _selects(match.source_selector, labels, labels):
            return dict(match.metadata.labels)
    return {"p2p": "true"}


def _of_match(
    service: str,
    match: Match,
    endpoints: Sequence[NetworkServiceEndpoint],
    labels: Mapping[str, str],
    chance: random.Random,
) -> list[NetworkServiceEndpoint]:
    if not match.routes:  # only about the forwarder: then any endpoint is meant, else none
        return _shuffled(endpoints, chance) if match.HasField("metadata") else []
    found: dict[str, NetworkServiceEndpoint] = {}
    for route in _drawn(match.routes, chance):
        fitting = [
            endpoint
            for endpoint in endpoints
            if _selects(route.destination_selector, endpoint.network_service_labels[service].labels, labels)
        ]
        for endpoint in _shuffled(fitting, chance):
            found.setdefault(endpoint.name, endpoint)
    return list(found.values())


def _selects(selector: Mapping[str, str], labels: Mapping[str, str], client: Mapping[str, str]) -> bool:
    """Return whether `labels` contain the selector, read as text or as a template over the client's labels."""
    return all(
        key in labels and labels[key] in (wanted, _TEMPLATE.sub(lambda m: client.get(m[1] or m[2], ""), wanted))
        for key, wanted in selector.items()
    )


def _shuffled(endpoints: Iterable[NetworkServiceEndpoint], chance: random.Random) -> list[NetworkServiceEndpoint]:
    shuffled = list(endpoints)
    chance.shuffle(shuffled)
    return shuffled


def _drawn(routes: Iterable[Destination], chance: random.Random) -> list[Destination]:
    """Return the routes in an order drawn by weight (Efraimidis and Spirakis: u^(1/w), greatest first)."""
    return sorted(routes, key=lambda route: chance.random() ** (1.0 / (route.weight or 1)), reverse=True)
