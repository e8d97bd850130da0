"""The resource types that are served, and the order in which they are sent.

Clusters and endpoints go before the listeners and routes that send traffic to them (xDS, "eventual consistency
considerations"), so that traffic never goes to what a proxy doesn't know yet.
"""

from __future__ import annotations

_PREFIX = "type.googleapis.com/envoy."

CLUSTER = f"{_PREFIX}config.cluster.v3.Cluster"
ENDPOINT = f"{_PREFIX}config.endpoint.v3.ClusterLoadAssignment"
LISTENER = f"{_PREFIX}config.listener.v3.Listener"
ROUTE = f"{_PREFIX}config.route.v3.RouteConfiguration"
SECRET = f"{_PREFIX}extensions.transport_sockets.tls.v3.Secret"
EXTENSION = f"{_PREFIX}config.core.v3.TypedExtensionConfig"

ORDER = (CLUSTER, ENDPOINT, LISTENER, ROUTE)
"""Of the types that traffic depends on; others are sent as soon as they are asked for."""

WILDCARD = (CLUSTER, LISTENER)
"""Who names none of these gets all of its own; and without increments a response has all that the client asks for."""

LEADS_TO = {CLUSTER: ENDPOINT, LISTENER: ROUTE}
"""A client asks for the second once it got the first, and can't use the first without."""

ANY = "*"


def short(type_url: str) -> str:
    """Return the last word of a type's name, for people."""
    return type_url.rpartition(".")[2]
