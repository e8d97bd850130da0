"""The mesh that the objects describe: services, workloads, sidecars and what is said of them, with references resolved.

One decision to know: everything is immutable and grouped by namespace (`Area`), and an area whose objects did not
change is the same Python object in the next `Mesh`. So whoever works from a mesh finds what changed by identity,
and a change costs what its namespace costs. Objects of one namespace may speak of another's services: each area says
(`Area.says`) and hears (`Area.spoken`), and is another object when what it hears is. What a cluster holds (its Services
and Pods) comes resolved, as one `Discovered` a namespace, and stands beside what configuration objects say; where both
name a service, the cluster's is meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from meshwright.core.identity import SYSTEM_NAMESPACE
from meshwright.manager.model.claims import Said, Spoken
from meshwright.manager.model.domain import host_of, service_of
from meshwright.manager.model.governed import FREE, Governed
from meshwright.manager.model.meaning import Meaning
from meshwright.manager.model.parse import Parsed


class Protocol(Enum):
    """What an application speaks on a port. OTHER is TCP to a redirecting proxy, and nothing to one on Unix sockets."""

    HTTP1 = "http"
    HTTP2 = "http2"
    OTHER = "other"


_PROTOCOLS = {
    "http": Protocol.HTTP1,
    "http2": Protocol.HTTP2,
    "grpc": Protocol.HTTP2,
    "h2c": Protocol.HTTP2,
    "kubernetes.io/h2c": Protocol.HTTP2,
}


def protocol(name: str, application: str = "") -> Protocol:
    """Return what a port speaks: `application` (appProtocol) says so, or the port's name up to its first dash."""
    return _PROTOCOLS.get((application or name.split("-", 1)[0]).lower(), Protocol.OTHER)


class Proxy(Enum):
    """How a workload's proxy stands between it and the mesh."""

    SOCKETS = "sockets"  # proxy and application meet on Unix sockets, as a Sidecar says
    REDIRECT = "redirect"  # the kernel sends the workload's TCP connections to the proxy (an injected pod)
    NONE = "none"  # there is none: the workload speaks plain text


@dataclass(frozen=True, slots=True)
class Port:
    """A service's port; `target` is the workload's port number, or the name of one."""

    name: str
    number: int
    target: int | str
    protocol: Protocol


@dataclass(frozen=True, slots=True)
class Service:
    """A name that workloads answer to. `allow_on_outage`: requests pass while no mixer answers.

    `cluster_ips` are addresses of the name itself, behind which the cluster finds the workloads; a `headless` service
    of a cluster has none, and callers dial its pods' own addresses.
    """

    namespace: str
    name: str
    ports: tuple[Port, ...]
    selector: tuple[tuple[str, str], ...]
    allow_on_outage: bool
    cluster_ips: tuple[str, ...] = ()
    headless: bool = False
    external: str = ""  # its DNS name, where it isn't the one that follows from the other two

    @property
    def host(self) -> str:
        """The whole DNS name."""
        return self.external or host_of(self.name, self.namespace)

    @property
    def clustered(self) -> bool:
        """Whether a cluster has it, so that callers dial addresses and not only names."""
        return bool(self.cluster_ips) or self.headless


@dataclass(frozen=True, slots=True)
class Pod:
    """What only a pod has. `owner` made it (``Deployment/catalog``), or it itself did."""

    uid: str
    owner: str
    node: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)  # those of meshwright.io only


@dataclass(frozen=True, slots=True)
class Workload:
    """One instance, at an IP address; `ports` maps names of ports to numbers. In a cluster it is a pod."""

    namespace: str
    name: str
    address: str
    ports: Mapping[str, int]
    labels: Mapping[str, str]
    service_account: str
    proxy: Proxy = Proxy.SOCKETS
    pod: Pod | None = None

    @property
    def application(self) -> str:
        """What it is an instance of: the name of the Deployment (or such) of a pod; else its own."""
        return self.pod.owner.rpartition("/")[2] if self.pod else self.name

    def target(self, port: Port) -> int | None:
        """Return the number at which it answers for a service's port; None: it doesn't."""
        if self.pod is None and port.name in self.ports:
            return self.ports[port.name]
        return self.ports.get(port.target) if isinstance(port.target, str) else port.target


@dataclass(frozen=True, slots=True)
class Ingress:
    """A port that a workload's proxy serves; `socket` is where the application listens, None: on this very port."""

    number: int
    bind: str | None
    socket: str | None
    protocol: Protocol


@dataclass(frozen=True, slots=True)
class Egress:
    """A Unix socket on which an application reaches the hosts it may see (``NAMESPACE/HOST`` patterns)."""

    socket: str
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What the proxies of the selected workloads serve; no selector means all that no other one selects."""

    namespace: str
    name: str
    selector: tuple[tuple[str, str], ...]
    ingress: tuple[Ingress, ...]
    egress: tuple[Egress, ...]
    scope: tuple[str, ...] = ()  # hosts that injected pods see; none: all of them
    others: bool | None = None  # whether these reach other addresses too; None: as the mesh says


class Endpoint(NamedTuple):
    """An address and a port. Not `meshed`: no proxy of ours is there, so that bytes go there as they are.

    `outside`: it is no workload of the mesh's or the cluster's, such as the API server or a database elsewhere.
    `labels` are the workload's, sorted.
    """

    address: str
    port: int
    zone: str = ""
    meshed: bool = True
    outside: bool = False
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Discovered:
    """What a cluster holds in one namespace, resolved. Never changed: what differs is another object."""

    services: Mapping[str, Service]
    workloads: Mapping[str, Workload]
    endpoints: Mapping[tuple[str, int], tuple[Endpoint, ...]]
    accounts: Mapping[str, tuple[str, ...]]
    services_of: Mapping[str, tuple[str, ...]]


NOTHING = Discovered({}, {}, {}, {}, {})
SILENCE = Meaning()


class Known(NamedTuple):
    """A service, and what is said of it."""

    service: Service
    spoken: Spoken


@dataclass(frozen=True, slots=True)
class Area:
    """A namespace with its references resolved."""

    namespace: str
    services: Mapping[str, Service]
    workloads: Mapping[str, Workload]
    sidecars: Mapping[str, Sidecar]
    endpoints: Mapping[tuple[str, int], tuple[Endpoint, ...]]  # by service and its port
    accounts: Mapping[str, tuple[str, ...]]  # service accounts behind a service
    services_of: Mapping[str, tuple[str, ...]]  # services that a workload answers for
    sidecars_of: Mapping[str, tuple[str, ...]]  # by workload; more than one is an error
    discovered: Discovered = NOTHING  # what a cluster gave to all this
    members: tuple[Parsed, ...] = field(default=(), repr=False)  # of dialects: what `meaning` is made from
    meaning: Meaning = SILENCE  # what they mean
    says: Mapping[str, Said] = field(default_factory=dict)  # the part of it about services, by their namespace
    heard: Mapping[str, Said] = field(default_factory=dict)  # what all say of its own services, by who says it
    spoken: Mapping[str, Spoken] = field(default_factory=dict)  # the same, by service
    outside: Mapping[str, Spoken] = field(default_factory=dict)  # what all say of its external hosts
    abroad: Mapping[str, Known | None] = field(default_factory=dict)  # hosts elsewhere that its services' routes name

    governed: Governed = FREE  # what is enforced at its workloads
    plain: frozenset[tuple[str, int]] = frozenset()  # addresses and ports whose proxies take plain text only

    def find(self, host: str) -> Known | None:
        """Return a service that routes of this area's services may lead to, by its whole DNS name."""
        found = service_of(host)
        if found is None:
            return None
        if found[0] != self.namespace:
            return self.abroad.get(host)
        service = self.services.get(found[1])
        return Known(service, self.said_of(found[1])) if service else None

    def said_of(self, service: str) -> Spoken:
        """Return all that is said of one of its services."""
        return self.spoken.get(service) or Spoken(self.namespace)


@dataclass(frozen=True, slots=True)
class Mesh:
    """All of it at one revision. Access rules of `root_namespace` are for all namespaces."""

    revision: int
    areas: Mapping[str, Area]
    root_namespace: str = SYSTEM_NAMESPACE
    trust_domain: str = "mesh.local"


EMPTY = Mesh(0, {})
