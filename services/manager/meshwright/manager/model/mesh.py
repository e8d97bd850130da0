"""The mesh that the objects describe: services, workloads, sidecars and splits, with their references resolved.

One decision to know: everything is immutable and grouped by namespace (`Area`), and an area whose objects did not
change is the same Python object in the next `Mesh`. So whoever works from a mesh finds what changed by identity,
and a change costs what its namespace costs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from meshwright.core.config import Key
from meshwright.manager.istio.sidecar import Sidecar as SidecarDocument
from meshwright.manager.istio.workload_entry import INJECTED, WorkloadEntry
from meshwright.manager.model.kubernetes import ON_POLICY_OUTAGE, ServicePort
from meshwright.manager.model.kubernetes import Service as ServiceDocument
from meshwright.manager.model.parse import Parsed
from meshwright.manager.smi.traffic_split import TrafficSplit

DOMAIN = "svc.cluster.local"


class Protocol(Enum):
    """What an application speaks on a port. OTHER is TCP to a redirecting proxy, and nothing to one on Unix sockets."""

    HTTP1 = "http"
    HTTP2 = "http2"
    OTHER = "other"


_PROTOCOLS = {"http": Protocol.HTTP1, "http2": Protocol.HTTP2, "grpc": Protocol.HTTP2, "h2c": Protocol.HTTP2}


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

    `cluster_ips` are addresses of the name itself, behind which the cluster finds the workloads.
    """

    namespace: str
    name: str
    ports: tuple[Port, ...]
    selector: tuple[tuple[str, str], ...]
    allow_on_outage: bool
    cluster_ips: tuple[str, ...] = ()

    @property
    def host(self) -> str:
        """The whole DNS name."""
        return f"{self.name}.{self.namespace}.{DOMAIN}"


@dataclass(frozen=True, slots=True)
class Workload:
    """One instance, at an IP address; `ports` maps names of ports to numbers."""

    namespace: str
    name: str
    address: str
    ports: Mapping[str, int]
    labels: Mapping[str, str]
    service_account: str
    proxy: Proxy = Proxy.SOCKETS


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


@dataclass(frozen=True, slots=True)
class Split:
    """Who answers for `service`: names of services of the same namespace, with weights."""

    namespace: str
    name: str
    service: str
    backends: tuple[tuple[str, int], ...]


class Endpoint(tuple[str, int]):
    """An address and a port."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Area:
    """A namespace with its references resolved."""

    namespace: str
    services: Mapping[str, Service]
    workloads: Mapping[str, Workload]
    sidecars: Mapping[str, Sidecar]
    splits: Mapping[str, Split]
    endpoints: Mapping[tuple[str, int], tuple[Endpoint, ...]]  # by service and its port
    accounts: Mapping[str, tuple[str, ...]]  # service accounts behind a service
    services_of: Mapping[str, tuple[str, ...]]  # services that a workload answers for
    sidecars_of: Mapping[str, tuple[str, ...]]  # by workload; more than one is an error
    splits_of: Mapping[str, tuple[str, ...]]  # by service; more than one is an error


@dataclass(frozen=True, slots=True)
class Mesh:
    """All of it at one revision."""

    revision: int
    areas: Mapping[str, Area]


EMPTY = Mesh(0, {})


def build(revision: int, objects: Mapping[Key, Parsed], previous: tuple[Mapping[Key, Parsed], Mesh]) -> Mesh:
    """Resolve valid objects into a mesh, keeping the areas of `previous` whose objects are the same."""
    before, mesh = previous
    touched = {key.namespace for key, parsed in objects.items() if before.get(key) is not parsed}
    touched |= {key.namespace for key in before if key not in objects}
    members: dict[str, list[Parsed]] = {namespace: [] for namespace in touched if namespace}
    for key, parsed in objects.items():
        if key.namespace in members:
            members[key.namespace].append(parsed)
    areas = {namespace: area for namespace, area in mesh.areas.items() if namespace not in touched}
    areas |= {namespace: resolve(namespace, parsed) for namespace, parsed in members.items() if parsed}
    return Mesh(revision, areas)


def resolve(namespace: str, members: Iterable[Parsed]) -> Area:
    """Build one namespace from its objects."""
    services: dict[str, Service] = {}
    workloads: dict[str, Workload] = {}
    sidecars: dict[str, Sidecar] = {}
    splits: dict[str, Split] = {}
    for parsed in members:
        name = parsed.key.name
        match parsed.document:
            case ServiceDocument() as document:
                services[name] = _service(namespace, document)
            case WorkloadEntry() as document:
                workloads[name] = _workload(namespace, document)
            case SidecarDocument() as document:
                sidecars[name] = _sidecar(namespace, document)
            case TrafficSplit() as document:
                backends = tuple((backend.service, backend.weight) for backend in document.spec.backends)
                splits[name] = Split(namespace, name, document.root, backends)
    index = _Labels(workloads.values())
    behind = {name: index.select(service.selector) for name, service in services.items()}
    services_of: dict[str, list[str]] = defaultdict(list)
    for name in sorted(behind):
        for workload in behind[name]:
            services_of[workload.name].append(name)
    splits_of: dict[str, list[str]] = defaultdict(list)
    for name in sorted(splits):
        splits_of[splits[name].service].append(name)
    return Area(
        namespace,
        services,
        workloads,
        sidecars,
        splits,
        endpoints={
            (name, port.number): _endpoints(port, behind[name])
            for name, service in services.items()
            for port in service.ports
        },
        accounts={name: tuple(sorted({w.service_account for w in found})) for name, found in behind.items()},
        services_of={name: tuple(found) for name, found in services_of.items()},
        sidecars_of=_sidecars_of(index, sidecars, workloads),
        splits_of={name: tuple(found) for name, found in splits_of.items()},
    )


class _Labels:
    """Workloads by label, so that a selector costs what it finds."""

    def __init__(self, workloads: Iterable[Workload]) -> None:
        self._by_label: dict[tuple[str, str], list[Workload]] = defaultdict(list)
        for workload in workloads:
            for label in workload.labels.items():
                self._by_label[label].append(workload)

    def select(self, selector: tuple[tuple[str, str], ...]) -> list[Workload]:
        """Return the workloads that have all labels; an empty selector selects none, as in Kubernetes."""
        if not selector:
            return []
        rarest = min(selector, key=lambda label: len(self._by_label.get(label, ())))
        return [
            workload
            for workload in self._by_label.get(rarest, ())
            if all(workload.labels.get(key) == value for key, value in selector)
        ]


def _sidecars_of(
    index: _Labels, sidecars: Mapping[str, Sidecar], workloads: Mapping[str, Workload]
) -> dict[str, tuple[str, ...]]:
    selected: dict[str, list[str]] = defaultdict(list)
    for name in sorted(sidecars):
        for workload in index.select(sidecars[name].selector):
            selected[workload.name].append(name)
    general = tuple(sorted(name for name, sidecar in sidecars.items() if not sidecar.selector))
    return {name: tuple(selected.get(name, ())) or general for name in workloads}


def _endpoints(port: Port, workloads: Iterable[Workload]) -> tuple[Endpoint, ...]:
    found = set()
    for workload in workloads:
        number = workload.ports.get(port.name) if port.name else None
        if number is None:
            number = workload.ports.get(port.target) if isinstance(port.target, str) else port.target
        if number is not None:  # a workload that doesn't have the named port can't answer on it
            found.add(Endpoint((workload.address, number)))
    return tuple(sorted(found))


def _service(namespace: str, document: ServiceDocument) -> Service:
    return Service(
        namespace,
        document.metadata.name,
        tuple(_port(port) for port in document.spec.ports),
        tuple(sorted(document.spec.selector.items())),
        document.metadata.annotations.get(ON_POLICY_OUTAGE) == "allow",
        tuple(document.spec.cluster_ips),
    )


def _port(port: ServicePort) -> Port:
    protocol = (port.app_protocol or (port.name or "http").split("-", 1)[0]).lower()
    return Port(
        port.name or "",
        port.port,
        port.target_port if port.target_port is not None else port.port,
        _PROTOCOLS.get(protocol, Protocol.OTHER),
    )


def _workload(namespace: str, document: WorkloadEntry) -> Workload:
    spec = document.spec
    labels = {**document.metadata.labels, **spec.labels}
    proxy = Proxy(document.metadata.annotations.get(INJECTED, Proxy.SOCKETS.value))
    return Workload(namespace, document.metadata.name, spec.address, spec.ports, labels, spec.service_account, proxy)


def _sidecar(namespace: str, document: SidecarDocument) -> Sidecar:
    spec = document.spec
    selector = spec.workload_selector.labels if spec.workload_selector else {}
    return Sidecar(
        namespace,
        document.metadata.name,
        tuple(sorted(selector.items())),
        tuple(
            Ingress(
                listener.port.number,
                listener.bind,
                listener.default_endpoint.removeprefix("unix://"),
                Protocol.HTTP1 if listener.port.protocol == "HTTP" else Protocol.HTTP2,
            )
            for listener in spec.ingress
        ),
        tuple(Egress(listener.bind.removeprefix("unix://"), tuple(listener.hosts)) for listener in spec.egress),
    )
