"""The two kinds of objects and what may be asked about them: pure functions on messages (nsm.md, pitfall 6)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from meshwright.nsm.wire import NetworkService, NetworkServiceEndpoint


@dataclass(frozen=True, slots=True)
class Kind:
    """What the directory must know of a kind. `groups` are the indexes that an object is found by, beside its name."""

    name: str
    message: type[Any]
    matches: Callable[[Any, Any], bool]  # (query, object)
    groups: Callable[[Any], Iterable[str]]
    wanted_groups: Callable[[Any], Iterable[str]]


def service_matches(query: NetworkService, service: NetworkService) -> bool:
    """Return whether a network service is one that was asked for; empty fields fit all."""
    if query.name not in ("", service.name) or query.payload not in ("", service.payload):
        return False
    return not query.matches or list(query.matches) == list(service.matches)


def endpoint_matches(query: NetworkServiceEndpoint, endpoint: NetworkServiceEndpoint) -> bool:
    """Return whether an endpoint is one that was asked for; the URL is looked for as a part."""
    if query.name not in ("", endpoint.name) or query.url not in endpoint.url:
        return False
    if not set(query.network_service_names) <= set(endpoint.network_service_names):
        return False
    for service, wanted in query.network_service_labels.items():
        if service not in endpoint.network_service_labels:
            return False
        labels = endpoint.network_service_labels[service].labels
        if any(labels.get(key) != value for key, value in wanted.labels.items()):
            return False
    return True


SERVICES = Kind("services", NetworkService, service_matches, lambda service: (), lambda query: ())
ENDPOINTS = Kind(
    "endpoints",
    NetworkServiceEndpoint,
    endpoint_matches,
    lambda endpoint: dict.fromkeys(endpoint.network_service_names),
    lambda query: tuple(query.network_service_names),
)
