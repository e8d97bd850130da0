"""All resources of one revision, made when a proxy needs them and carried over from the revision before.

One decision to know: a snapshot is shared by all proxies and never changes, and what is equal in two revisions is
usually the same object. What a push must send is found by comparing them, so it costs what changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from meshwright.manager.model import mesh as meshes
from meshwright.manager.model.domain import DOMAIN
from meshwright.manager.xds import area as areas
from meshwright.manager.xds import names, proxy, route, types, wire

_SERVED = (types.CLUSTER, types.ENDPOINT, types.LISTENER, types.ROUTE)
_REMEMBERED = 64  # revisions whose changed endpoints are known; a proxy further behind compares everything


@dataclass(frozen=True, slots=True, eq=False)
class ClusterSet:
    """The outbound clusters of proxies that see the same services, and the endpoints' names that they lead to."""

    by_name: Mapping[str, wire.Resource]
    leads: frozenset[str]


EVERYTHING: proxy.Hosts = ("*/*",)


@dataclass(frozen=True, slots=True, eq=False)
class Redirected:
    """Listeners of all services, for redirecting proxies, and the names of the routes that those ask for."""

    listeners: Mapping[str, wire.Resource]
    route_names: frozenset[str]


_NOTHING = Redirected({}, frozenset())


class Snapshot:
    """One revision's resources."""

    def __init__(self, mesh: meshes.Mesh, parameters: names.Parameters, previous: Snapshot | None = None) -> None:
        self.revision = mesh.revision
        self.serial: int = previous.serial + 1 if previous else 1
        self._mesh, self._parameters = mesh, parameters
        old_areas = previous._areas if previous else {}
        old_mesh = previous._mesh.areas if previous else {}
        self._areas: dict[str, areas.AreaResources] = {
            namespace: old_areas[namespace]
            if old_mesh.get(namespace) is area
            else _translated(area, old_mesh.get(namespace), old_areas.get(namespace, areas.EMPTY), parameters)
            for namespace, area in mesh.areas.items()
        }
        changed = {
            types.ENDPOINT: frozenset(_changed(old_areas, self._areas, lambda area: area.endpoints)),
            types.ROUTE: frozenset(_changed(old_areas, self._areas, lambda area: area.redirected_routes)),
        }
        self._recent: tuple[tuple[int, Mapping[str, frozenset[str]]], ...] = (
            *(previous._recent if previous else ()),
            (self.serial, changed),
        )[-_REMEMBERED:]
        self.serials: dict[str, int] = {  # of the snapshots in which something of a type changed last
            type_url: self.serial if names or previous is None else previous.serials[type_url]
            for type_url, names in changed.items()
        }
        self.version = str(self.revision)  # as clients are told it
        self.routes_mark = object()  # the same while no outbound route configuration changes
        self._since: dict[tuple[str, int], frozenset[str] | None] = {}
        self._clusters_since: dict[tuple[ClusterSet, ClusterSet], frozenset[str]] = {}
        self._proxies: dict[tuple[str, str], proxy.ProxyResources] = {}
        self._proxies_checked: set[tuple[str, str]] = set()
        self._routes: dict[tuple[str, proxy.Hosts], wire.Resource] = {}
        self._clusters: dict[tuple[str, frozenset[proxy.Hosts]], ClusterSet] = {}
        self._redirected: Redirected | None = None
        if previous:
            self._carry_over(previous)

    def _carry_over(self, previous: Snapshot) -> None:
        """Take what is made from nothing that changed."""
        self._proxies = {key: own for key, own in previous._proxies.items() if self._has(*key)}
        same = {name for name, area in self._mesh.areas.items() if previous._mesh.areas.get(name) is area}
        self._proxies_checked = {key for key in previous._proxies_checked if key[0] in same}
        if self._unchanged(previous, lambda area: (area.local_hosts, area.foreign_hosts)):
            self._routes, self.routes_mark = previous._routes, previous.routes_mark
        if self._unchanged(previous, lambda area: (area.clusters,)):
            self._clusters = previous._clusters
        if self._unchanged(previous, lambda area: (area.redirected,)):
            self._redirected = previous._redirected

    def _unchanged(self, previous: Snapshot, parts: Callable[[areas.AreaResources], tuple[object, ...]]) -> bool:
        return self._areas.keys() == previous._areas.keys() and all(
            one is other
            for name, area in self._areas.items()
            for one, other in zip(parts(area), parts(previous._areas[name]), strict=True)
        )

    def service_account(self, namespace: str, workload: str) -> str | None:
        """Return the service account of a workload, or None when there is no such workload."""
        return (
            self._mesh.areas[namespace].workloads[workload].service_account if self._has(namespace, workload) else None
        )

    def proxies(self) -> Iterator[tuple[str, str]]:
        """List namespace and name of every workload that has a proxy."""
        for namespace, area in self._mesh.areas.items():
            for name, workload in area.workloads.items():
                if workload.proxy is not meshes.Proxy.NONE:
                    yield namespace, name

    def view(self, namespace: str, workload: str) -> View | None:
        """Return what one proxy is to have, or None when there is no such workload."""
        own = self._own(namespace, workload)
        if own is None:
            return None
        if own.redirecting:
            return View(self, own, self._cluster_set(namespace, frozenset([EVERYTHING])), self._all_redirected())
        return View(self, own, self._cluster_set(namespace, frozenset(own.outbound.values())), _NOTHING)

    def endpoint(self, cluster: str) -> wire.Resource | None:
        """Return the endpoints of a cluster."""
        area = self._area_of(cluster)
        return area.endpoints.get(cluster) if area else None

    def redirected_routes(self, name: str) -> wire.Resource | None:
        """Return the route configuration of a service's listener in redirecting proxies."""
        area = self._area_of(name)
        return area.redirected_routes.get(name) if area else None

    def _area_of(self, name: str) -> areas.AreaResources | None:
        host = name.rpartition("|")[2].split(".")
        return self._areas.get(host[1]) if len(host) > 1 else None

    def _all_redirected(self) -> Redirected:
        if self._redirected is None:
            listeners = {
                name: made for _, area in sorted(self._areas.items()) for name, made in area.redirected.items()
            }
            routes = {name for area in self._areas.values() for name in area.redirected_routes}
            self._redirected = Redirected(listeners, frozenset(routes))
        return self._redirected

    def changed_since(self, type_url: str, serial: int) -> frozenset[str] | None:
        """Return the endpoints or redirected routes that changed after snapshot `serial`; None: too long ago."""
        key = type_url, serial
        if key not in self._since:
            later = [names[type_url] for number, names in self._recent if number > serial]
            known = len(later) == self.serial - serial
            self._since[key] = frozenset().union(*later) if known else None
        return self._since[key]

    def clusters_changed(self, old: ClusterSet, new: ClusterSet) -> frozenset[str]:
        """Return the names in which two sets of clusters differ; found out once for all proxies."""
        key = old, new
        if key not in self._clusters_since:
            self._clusters_since[key] = frozenset(differing(old.by_name, new.by_name))
        return self._clusters_since[key]

    def outbound_routes(self, name: str, namespace: str, hosts: proxy.Hosts) -> wire.Resource:
        """Return the route configuration of what a namespace's workloads see through `hosts`."""
        key = (namespace, hosts)
        if key not in self._routes:
            virtual_hosts = [
                host
                for other, service in self._visible(namespace, (hosts,))
                for host in (
                    self._areas[other].local_hosts if other == namespace else self._areas[other].foreign_hosts
                )[service]
            ]
            self._routes[key] = route.outbound_configuration(name, virtual_hosts)
        return self._routes[key]

    def _has(self, namespace: str, workload: str) -> bool:
        area = self._mesh.areas.get(namespace)
        return area is not None and workload in area.workloads

    def _own(self, namespace: str, workload: str) -> proxy.ProxyResources | None:
        key = (namespace, workload)
        if key not in self._proxies_checked:
            area = self._mesh.areas.get(namespace)
            source = proxy.source(area, workload) if area else None
            if area is None or source is None:
                return None
            old = self._proxies.get(key)
            if old is None or old.source != source:
                self._proxies[key] = proxy.translate(area, source, self._parameters)
            self._proxies_checked.add(key)
        return self._proxies[key]

    def _cluster_set(self, namespace: str, hosts: frozenset[proxy.Hosts]) -> ClusterSet:
        key = (namespace, hosts)
        if key not in self._clusters:
            by_name: dict[str, wire.Resource] = {}
            for other, service in self._visible(namespace, tuple(hosts)):
                by_name |= self._areas[other].clusters[service]
            self._clusters[key] = ClusterSet(by_name, frozenset().union(*(made.leads for made in by_name.values())))
        return self._clusters[key]

    def _visible(self, namespace: str, patterns: tuple[proxy.Hosts, ...]) -> Iterator[tuple[str, str]]:
        """List (namespace, service) of what any of the patterns lets a namespace see, in the order of names."""
        split = [host.split("/", 1) for hosts in patterns for host in hosts]
        wanted = [(namespace if where == "." else where, host) for where, host in split]
        for other in sorted(self._areas):
            here = {host for where, host in wanted if where in ("*", other)}
            for service in sorted(self._areas[other].clusters):
                if "*" in here or f"{service}.{other}.{DOMAIN}" in here:
                    yield other, service


class View:
    """What one proxy is to have: its own resources and the shared ones that it sees (`source.View`)."""

    __slots__ = ("_redirected", "_snapshot", "own", "revision", "shared", "version")

    def __init__(
        self, snapshot: Snapshot, own: proxy.ProxyResources, shared: ClusterSet, redirected: Redirected
    ) -> None:
        self._snapshot, self.own, self.shared, self._redirected = snapshot, own, shared, redirected
        self.revision = snapshot.revision  # the configuration's
        self.version = snapshot.version

    @property
    def own_clusters(self) -> Mapping[str, wire.Resource]:
        """Clusters of the application behind the proxy."""
        return self.own.clusters

    @property
    def listeners(self) -> Mapping[str, wire.Resource]:
        """The proxy's own listeners and, of a redirecting one, those of all services."""
        if not self._redirected.listeners:
            return self.own.listeners
        return {**self.own.listeners, **self._redirected.listeners}

    @property
    def route_names(self) -> frozenset[str]:
        """The route configurations that the listeners name."""
        return self.own.route_names | self._redirected.route_names

    def serves(self, type_url: str) -> bool:
        """Whether a mesh has resources of a type."""
        return type_url in _SERVED

    def mark(self, type_url: str) -> object:
        """Return what the proxy's resources of a type are made of: equal only if all of it is the same."""
        if type_url == types.ENDPOINT:
            return self.shared, self._snapshot.serials[types.ENDPOINT]
        if type_url == types.CLUSTER:
            return self.shared, self.own
        if type_url == types.LISTENER:
            return self.own, self._redirected
        return self.own, self._snapshot.routes_mark, self._snapshot.serials[types.ROUTE]

    def find(self, type_url: str, name: str) -> wire.Resource | None:
        """Return one of the resources that this proxy sees."""
        if type_url == types.ENDPOINT:
            return self.endpoint(name)
        if type_url == types.ROUTE:
            return self.route(name)
        if type_url == types.CLUSTER:
            return self.shared.by_name.get(name) or self.own.clusters.get(name)
        return self.own.listeners.get(name) or self._redirected.listeners.get(name)

    def all(self, type_url: str) -> Mapping[str, wire.Resource]:
        """Return all resources of a type that this proxy sees."""
        if type_url == types.CLUSTER:
            return {**self.own.clusters, **self.shared.by_name}
        if type_url == types.LISTENER:
            return self.listeners
        names = self.shared.leads if type_url == types.ENDPOINT else self.route_names
        found = ((name, self.find(type_url, name)) for name in sorted(names))
        return {name: resource for name, resource in found if resource is not None}

    def leads(self, type_url: str) -> frozenset[str]:
        """Return the endpoints that the clusters, or the route configurations that the listeners lead to."""
        return self.shared.leads if type_url == types.CLUSTER else self.route_names

    def changed_since(self, type_url: str, mark: object) -> frozenset[str] | None:
        """Return the names of what changed since a view with that mark; None when it can't be told."""
        match type_url, mark:
            case types.ENDPOINT, (ClusterSet() as shared, int(serial)):
                changed = self._snapshot.changed_since(types.ENDPOINT, serial)
                if shared is self.shared or changed is None:
                    return changed
                return changed | self._snapshot.clusters_changed(shared, self.shared)
            case types.CLUSTER, (ClusterSet() as shared, self.own):
                return self._snapshot.clusters_changed(shared, self.shared)
            case types.ROUTE, (self.own, self._snapshot.routes_mark, int(serial)):
                return self._snapshot.changed_since(types.ROUTE, serial)
        return None

    def route(self, name: str) -> wire.Resource | None:
        """Return a route configuration of this proxy."""
        hosts = self.own.outbound.get(name)
        if hosts is None:
            own = self.own.routes.get(name)
            return own if own is not None or not self.own.redirecting else self._snapshot.redirected_routes(name)
        return self._snapshot.outbound_routes(name, self.own.source.workload.namespace, hosts)

    def endpoint(self, cluster: str) -> wire.Resource | None:
        """Return the endpoints of a cluster that this proxy sees."""
        return self._snapshot.endpoint(cluster) if cluster in self.shared.by_name else None


def _translated(
    area: meshes.Area, before: meshes.Area | None, previous: areas.AreaResources, parameters: names.Parameters
) -> areas.AreaResources:
    moved = areas.moved(area, before, previous, parameters) if before else None
    return moved or areas.translate(area, previous, parameters)


def _changed(
    old: Mapping[str, areas.AreaResources],
    new: Mapping[str, areas.AreaResources],
    part: Callable[[areas.AreaResources], Mapping[str, wire.Resource]],
) -> Iterator[str]:
    for namespace in old.keys() | new.keys():
        before, after = old.get(namespace, areas.EMPTY), new.get(namespace, areas.EMPTY)
        if before is not after:
            yield from differing(part(before), part(after))


def differing(old: Mapping[str, wire.Resource], new: Mapping[str, wire.Resource]) -> Iterator[str]:
    """Yield the names under which two tables have something else."""
    yield from old.keys() - new.keys()
    for name, resource in new.items():
        if old.get(name) is not resource:
            yield name
