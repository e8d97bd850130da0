"""A cluster's services, slices and pods, put together as the mesh wants them: one `Discovered` a namespace.

One decision to know: it is a fold. What comes out depends on the objects that are there, never on the order in which
they came; and what comes out is the same Python object for as long as it says the same, so that a change costs what it
changed. An endpoint whose pod isn't known yet is left out until it is: whether it has a proxy decides how it is spoken
to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from meshwright.manager.model.mesh import Discovered, Endpoint, Port, Proxy, Service, Workload
from meshwright.manager.sources.kubernetes.found import FoundService, Slice, SliceEndpoint
from meshwright.manager.sources.kubernetes.reflector import Name

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


class Landscape:
    """Call the sinks as things happen; `settle` gives what came of it."""

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self._places: dict[str, _Place] = {}
        self._existing: set[str] = set()
        self._settled: Mapping[str, Discovered] = {}
        self._changed = changed
        self._stale: set[str] = set()
        self.services = Entrance(self._into(_Place.service))
        self.slices = Entrance(self._into(_Place.slice))
        self.pods = Entrance(self._into(_Place.pod))
        self.namespaces = Entrance(self._exists)

    def settle(self) -> Mapping[str, Discovered]:
        """Return what there is, by namespace: the same mapping when nothing changed."""
        if self._stale:
            self._settled = {**self._settled}
            for namespace in self._stale:
                place = self._places.get(namespace)
                if place is not None and place.empty and namespace not in self._existing:
                    del self._places[namespace]
                    place = None
                if place is not None:
                    self._settled[namespace] = place.settle()
                elif namespace in self._existing:
                    self._settled.setdefault(namespace, Discovered({}, {}, {}, {}, {}))
                else:
                    self._settled.pop(namespace, None)
            self._stale.clear()
        return self._settled

    def counts(self) -> dict[str, int]:
        """Return how many objects there are of each kind."""
        return {
            "Namespace": len(self._existing),
            "Service": len(self.services),
            "Pod": len(self.pods),
            "EndpointSlice": len(self.slices),
        }

    def _into(self, apply: Callable[[_Place, str, T | None], bool]) -> Callable[[Name, T | None], None]:
        def take(name: Name, value: T | None) -> None:
            namespace, own = name
            if value is None and namespace not in self._places:
                return
            place = self._places.setdefault(namespace, _Place())
            if apply(place, own, value):
                self._stale.add(namespace)
                self._changed()

        return take

    def _exists(self, name: Name, value: str | None) -> None:
        if (name[1] in self._existing) is (value is not None):
            return
        (self._existing.add if value is not None else self._existing.discard)(name[1])
        self._stale.add(name[1])
        self._changed()


class Entrance(Generic[T]):
    """Where one kind's reflector puts what it finds. It remembers names only, to know what a new list lacks."""

    def __init__(self, take: Callable[[Name, T | None], None]) -> None:
        self._take = take
        self._names: set[Name] = set()

    def __len__(self) -> int:
        return len(self._names)

    def replace(self, found: Mapping[Name, T]) -> None:
        """Take all there is."""
        for name in self._names - found.keys():
            self.drop(name)
        for name, value in found.items():
            self.put(name, value)

    def put(self, name: Name, value: T) -> None:
        """Take one that is new or different."""
        self._names.add(name)
        self._take(name, value)

    def drop(self, name: Name) -> None:
        """Forget one."""
        self._names.discard(name)
        self._take(name, None)


class _Place:
    """One namespace: what was found, and what is known to follow from it."""

    def __init__(self) -> None:
        self._services: dict[str, FoundService] = {}
        self._slices: dict[str, Slice] = {}
        self._pods: dict[str, Workload] = {}
        self._slices_of: dict[str, dict[str, Slice]] = defaultdict(dict)  # by service
        self._users: dict[str, set[str]] = defaultdict(set)  # services with an endpoint in a pod
        self._by_label: dict[tuple[str, str], list[Service]] | None = None
        # What must be looked at again: services whose endpoints, and pods whose services may be others.
        self._stale_services: set[str] = set()
        self._stale_pods: set[str] = set()
        self._discovered = Discovered({}, {}, {}, {}, {})

    @property
    def empty(self) -> bool:
        return not (self._services or self._slices or self._pods)

    def service(self, name: str, value: FoundService | None) -> bool:
        before = self._services.get(name)
        if not _set(self._services, name, value):
            return False
        self._stale_services.add(name)
        selectors = [found.service.selector if found else () for found in (before, value)]
        if selectors[0] != selectors[1]:
            self._by_label = None
            self._stale_pods |= self._pods.keys()
        return True

    def slice(self, name: str, value: Slice | None) -> bool:
        before = self._slices.get(name)
        if not _set(self._slices, name, value):
            return False
        touched = {found.service for found in (before, value) if found}
        if before:
            self._slices_of[before.service].pop(name, None)
        if value:
            self._slices_of[value.service][name] = value
        for service in touched:
            if not self._slices_of[service]:
                del self._slices_of[service]
        pods = {endpoint.pod for found in (before, value) if found for endpoint in found.endpoints if endpoint.pod}
        for pod in pods:
            self._note_users(pod, touched)
        self._stale_services |= touched
        return True

    def pod(self, name: str, value: Workload | None) -> bool:
        if not _set(self._pods, name, value):
            return False
        self._stale_pods.add(name)
        self._stale_services |= self._users.get(name, set())
        return True

    def settle(self) -> Discovered:
        """Work out anew what may differ; the same object as before when nothing does."""
        old = self._discovered
        services: dict[str, Service | None] = {}
        endpoints: dict[tuple[str, int], tuple[Endpoint, ...] | None] = {}
        accounts: dict[str, tuple[str, ...] | None] = {}
        for name in self._stale_services:
            before, found = old.services.get(name), self._services.get(name)
            services[name] = found.service if found else None
            accounts[name] = self._accounts(name) if found else None
            endpoints |= {(name, port.number): None for port in before.ports} if before else {}
            endpoints |= {(name, port.number): made for port, made in self._endpoints(name)} if found else {}
        workloads = {name: self._pods.get(name) for name in self._stale_pods}
        services_of = {name: self._services_of(pod) if pod else None for name, pod in workloads.items()}
        self._stale_services.clear()
        self._stale_pods.clear()
        new = (
            _patched(old.services, services),
            _patched(old.workloads, workloads),
            _patched(old.endpoints, endpoints),
            _patched(old.accounts, accounts),
            _patched(old.services_of, services_of),
        )
        parts = (old.services, old.workloads, old.endpoints, old.accounts, old.services_of)
        if any(one is not other for one, other in zip(parts, new, strict=True)):
            self._discovered = Discovered(*new)
        return self._discovered

    def _note_users(self, pod: str, services: set[str]) -> None:
        for service in services:
            slices = self._slices_of.get(service, {}).values()
            if any(endpoint.pod == pod for found in slices for endpoint in found.endpoints):
                self._users[pod].add(service)
            else:
                self._users[pod].discard(service)
        if not self._users[pod]:
            del self._users[pod]

    def _of_family(self, service: str) -> list[Slice]:
        family = self._services[service].family
        slices = self._slices_of.get(service, {})
        return [slices[name] for name in sorted(slices) if slices[name].family == family]

    def _endpoints(self, service: str) -> Iterator[tuple[Port, tuple[Endpoint, ...]]]:
        slices = self._of_family(service)
        for port in self._services[service].service.ports:
            found = [
                (endpoint, number)
                for each in slices
                for name, number in each.ports
                if name == port.name
                for endpoint in each.endpoints
            ]
            # As kube-proxy does: what is leaving serves on only where nothing else is there.
            chosen = [pair for pair in found if pair[0].ready] or [pair for pair in found if pair[0].leaving]
            made = {self._endpoint(endpoint, number) for endpoint, number in chosen}
            yield port, tuple(sorted(endpoint for endpoint in made if endpoint is not None))

    def _endpoint(self, found: SliceEndpoint, number: int) -> Endpoint | None:
        if not found.pod:
            return Endpoint(found.address, number, found.zone, meshed=False, outside=True)
        pod = self._pods.get(found.pod)
        if pod is None:
            return None
        labels = tuple(sorted(pod.labels.items()))
        return Endpoint(found.address, number, found.zone, pod.proxy is not Proxy.NONE, labels=labels)

    def _accounts(self, service: str) -> tuple[str, ...]:
        names = {endpoint.pod for each in self._of_family(service) for endpoint in each.endpoints}
        pods = [self._pods[name] for name in names if name in self._pods]
        return tuple(sorted({pod.service_account for pod in pods if pod.proxy is not Proxy.NONE}))

    def _services_of(self, pod: Workload) -> tuple[str, ...]:
        """Return the services that select a pod: by labels, because it must be served before it is ready."""
        if self._by_label is None:
            self._by_label = defaultdict(list)
            for found in self._services.values():
                if found.service.selector:
                    self._by_label[found.service.selector[0]].append(found.service)
        return tuple(
            sorted(
                service.name
                for label in pod.labels.items()
                for service in self._by_label.get(label, ())
                if all(pod.labels.get(key) == value for key, value in service.selector)
            )
        )


def _set(known: dict[str, T], name: str, value: T | None) -> bool:
    """Put or take away; return whether that made a difference."""
    if known.get(name) == value:
        return False
    if value is None:
        del known[name]
    else:
        known[name] = value
    return True


def _patched(old: Mapping[K, V], changes: Mapping[K, V | None]) -> Mapping[K, V]:
    """Return `old` with changes, None taking away; `old` itself where they change nothing."""
    differing = {key: value for key, value in changes.items() if old.get(key) != value}
    if not differing:
        return old
    new = dict(old)
    for key, value in differing.items():
        if value is None:
            del new[key]
        else:
            new[key] = value
    return new
