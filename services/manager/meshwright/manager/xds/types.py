"""The resource types that the manager serves, and the order in which they are sent.

Clusters and endpoints go before the listeners and routes that send traffic to them (xDS, "eventual consistency
considerations"), so that traffic never goes to what a proxy doesn't know yet.
"""

from __future__ import annotations

_PREFIX = "type.googleapis.com/envoy.config."

CLUSTER = f"{_PREFIX}cluster.v3.Cluster"
ENDPOINT = f"{_PREFIX}endpoint.v3.ClusterLoadAssignment"
LISTENER = f"{_PREFIX}listener.v3.Listener"
ROUTE = f"{_PREFIX}route.v3.RouteConfiguration"

ORDER = (CLUSTER, ENDPOINT, LISTENER, ROUTE)
WILDCARD = (CLUSTER, LISTENER)  # a proxy gets all of its own; of the others those that it names


def short(type_url: str) -> str:
    """Return the last word of a type's name, for people."""
    return type_url.rpartition(".")[2]
