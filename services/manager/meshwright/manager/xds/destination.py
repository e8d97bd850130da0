"""Which cluster a backend of a route means."""

from __future__ import annotations

from meshwright.manager.model.mesh import Area, Port, Protocol
from meshwright.manager.model.routing import Backend, Destination
from meshwright.manager.xds import names

NOWHERE = "nowhere"
"""No cluster has this name."""


def cluster(area: Area, backend: Backend, port: Port) -> str | None:
    """Return the cluster that gets a backend's share of what a caller sends to `port`; None: it has none.

    A cluster that doesn't exist (yet) has a share all the same, which fails.
    """
    return NOWHERE if backend.fault else reached(area, backend.destination, port)


def reached(area: Area, destination: Destination, port: Port) -> str | None:
    """Return the cluster of a destination; None: the host exists and has no port of the caller's number."""
    subset = destination.subset or names.group(destination.labels)
    service = area.service(destination.host)
    wanted = destination.port or port.number
    if service is None:
        return names.outbound_to(destination.host, wanted, subset)
    if destination.port is None and destination.only_port and len(service.ports) == 1:
        wanted = service.ports[0].number
    carried = {each.number for each in service.ports if _alike(each.protocol, port.protocol)}
    if wanted in carried:
        return names.outbound_to(destination.host, wanted, subset)
    return None if destination.port is None else NOWHERE


def _alike(one: Protocol, other: Protocol) -> bool:
    """Whether what is sent to a port of one protocol may go to one of the other: all of HTTP, or bytes to bytes."""
    return (one is Protocol.OTHER) is (other is Protocol.OTHER)
