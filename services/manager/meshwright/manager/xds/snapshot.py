"""All resources of one revision, made when a proxy needs them and carried over from the revision before.

One decision to know: a snapshot is shared by all proxies and never changes, and what is equal in two revisions is
usually the same object. What a push must send is found by comparing them, so it costs what changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from meshwright.api.envoy.config.route.v3.route_components_pb2 import VirtualHost
from meshwright.manager.model import mesh as meshes
from meshwright.manager.model.domain import host_of, service_of
from meshwright.manager.model.routing import CallerMatch
from meshwright.manager.xds import area as areas
from meshwright.manager.xds import caller as callers
from meshwright.manager.xds import external, gateway, names, proxy, route, types, wire
from meshwright.manager.xds.caller import Caller
from meshwright.manager.xds.proxy import EVERYTHING

_SERVED = (types.CLUSTER, types.ENDPOINT, types.LISTENER, types.ROUTE)
_REMEMBERED = 64  # revisions whose changed endpoints are known; a proxy further behind compares everything


@dataclass(frozen=True, slots=True, eq=False)
class ClusterSet:
    """The outbound clusters of proxies that see the same services, and the endpoints' names that they lead to."""

    by_name: Mapping[str, wire.Resource]
    leads: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class VirtualHosts:
    """Virtual hosts, serialised, by name; and the names of those by each domain that means them."""

    by_name: Mapping[str, bytes]
    by_domain: Mapping[str, str]

    @classmethod
    def of(cls, serialised: Iterable[bytes]) -> VirtualHosts:
        """Read names and domains."""
        by_name: dict[str, bytes] = {}
        by_domain: dict[str, str] = {}
        for one in serialised:
            host = VirtualHost.FromString(one)
            by_name[host.name] = one
            by_domain |= dict.fromkeys(host.domains, host.name)
        return cls(by_name, by_domain)


@dataclass(frozen=True, slots=True, eq=False)
class Redirected:
    """Listeners of all services, for redirecting proxies, and the names of the routes that those ask for."""

    listeners: Mapping[str, wire.Resource]
    route_names: frozenset[str]


_NOTHING = Redirected({}, frozenset())


@dataclass(frozen=True, slots=True, eq=False)
class _Deciding:
    """What decides which callers have the same: their namespaces and the conditions that they fulfil."""

    clusters: tuple[frozenset[str], frozenset[CallerMatch]]
    listeners: tuple[frozenset[str], frozenset[CallerMatch]]
    matter: frozenset[CallerMatch]


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
            types.ROUTE: frozenset(_changed(old_areas, self._areas, lambda area: area.routes)),
        }
        self._recent: tuple[tuple[int, Mapping[str, frozenset[str]]], ...] = (
            *(previous._recent if previous else ()),
            (self.serial, changed),
        )[-_REMEMBERED:]
        self.serials: dict[str, int] = {  # of the snapshots in which something of a type changed last
            type_url: self.serial if names or previous is None else previous.serials[type_url]
            for type_url, names in changed.items()
        }
        self.routes_mark = object()  # the same while no outbound route configuration changes
        self._since: dict[tuple[str, int], frozenset[str] | None] = {}
        self._clusters_since: dict[tuple[ClusterSet, ClusterSet], frozenset[str]] = {}
        self._gateways = gateway.gateways(mesh)
        self._describing = external.describing(mesh)
        self._proxies: dict[tuple[str, str], proxy.ProxyResources] = {}
        self._proxies_checked: set[tuple[str, str]] = set()
        self._routes: dict[tuple[Caller, proxy.Hosts], wire.Resource] = {}
        self._clusters: dict[tuple[Caller, frozenset[proxy.Hosts]], ClusterSet] = {}
        self._redirected: dict[tuple[Caller, proxy.Hosts], Redirected] = {}
        self._virtual_hosts: dict[Caller, VirtualHosts] = {}
        self._callers: dict[tuple[str, str], Caller] = {}
        self._found_deciding: _Deciding | None = None
        if previous:
            self._carry_over(previous)

    def _carry_over(self, previous: Snapshot) -> None:
        """Take what is made from nothing that changed."""
        self._proxies = {key: own for key, own in previous._proxies.items() if self._has(*key)}
        same = {name for name, area in self._mesh.areas.items() if previous._mesh.areas.get(name) is area}
        if self._gateways == previous._gateways:  # else some proxy may have become a gateway's, or be one no more
            checked = {key for key in previous._proxies_checked if key[0] in same}
            self._proxies_checked = {key for key in checked if not self._proxies[key].standing}
        if self._unchanged(previous, lambda area: (area.hosts,)):
            self._routes, self.routes_mark = previous._routes, previous.routes_mark
            self._virtual_hosts = previous._virtual_hosts
        if self._unchanged(previous, lambda area: (area.clusters,)):
            self._clusters = previous._clusters
        if self._unchanged(previous, lambda area: (area.listeners,)):  # which routes they name is theirs to say
            self._redirected = previous._redirected
        if self._unchanged(previous, lambda area: (area.hosts, area.clusters, area.listeners)):
            self._found_deciding = previous._found_deciding
            self._callers = {key: found for key, found in previous._callers.items() if key[0] in same}

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
        who = self._caller(namespace, workload)
        if own.standing:
            return View(self, own, who, self._cluster_set(who, frozenset([EVERYTHING])), _NOTHING)
        if own.redirecting:
            shared = self._cluster_set(who, frozenset([own.scope]))
            return View(self, own, who, shared, self._all_redirected(who, own.scope))
        return View(self, own, who, self._cluster_set(who, frozenset(own.outbound.values())), _NOTHING)

    def everything(self, namespace: str, workload: str) -> View | None:
        """Return what a workload without a proxy may see, or None when there is no such workload."""
        own = self._own(namespace, workload)
        if own is None:
            return None
        who = self._caller(namespace, workload)
        return View(self, own, who, self._cluster_set(who, frozenset([EVERYTHING])), _NOTHING)

    def virtual_hosts(self, who: Caller) -> VirtualHosts:
        """Return all virtual hosts as a caller sees them."""
        if who not in self._virtual_hosts:
            found = [
                host
                for other, service in self._visible(who.namespace, (EVERYTHING,))
                for host in self._areas[other].hosts[service].of(who)
            ]
            self._virtual_hosts[who] = VirtualHosts.of(found)
        return self._virtual_hosts[who]

    def endpoint(self, name: str) -> wire.Resource | None:
        """Return the endpoints that a cluster asks for."""
        area = self._area_of(name)
        return area.endpoints.get(name) if area else None

    def redirected_routes(self, name: str, who: Caller) -> wire.Resource | None:
        """Return the route configuration of a service's listener in redirecting proxies."""
        area = self._area_of(name)
        variants = area.routes.get(name) if area else None
        return variants.of(who).get(name) if variants else None

    def _caller(self, namespace: str, workload: str) -> Caller:
        """Return what a workload is as a caller; it was found before."""
        key = (namespace, workload)
        if key not in self._callers:
            self._callers[key] = callers.caller(self._mesh.areas[namespace], workload, self._deciding.matter)
        return self._callers[key]

    @property
    def _deciding(self) -> _Deciding:
        if self._found_deciding is None:
            found = self._areas.values()
            clusters = callers.union(area.clusters for area in found)
            listeners = callers.union(area.listeners for area in found)
            hosts = callers.union(area.hosts for area in found)
            self._found_deciding = _Deciding(clusters, listeners, clusters[1] | listeners[1] | hosts[1])
        return self._found_deciding

    def _area_of(self, name: str) -> areas.AreaResources | None:
        found = service_of(name.rpartition("|")[2])
        if found is None:  # a host outside, which any namespace may describe
            return next((area for area in self._areas.values() if name in area.routes), None)
        return self._areas.get(found[0])

    def _all_redirected(self, who: Caller, hosts: proxy.Hosts) -> Redirected:
        if not any(host.startswith("./") for host in hosts):
            who = callers.narrowed(who, *self._deciding.listeners)
        key = (who, hosts)
        if key not in self._redirected:
            listeners: dict[str, wire.Resource] = {}
            routes: set[str] = set()
            for namespace, service in self._visible(who.namespace, (hosts,)):
                area = self._areas[namespace]
                if service in area.listeners:
                    mine = area.listeners[service].of(who)
                    listeners |= mine
                    routes |= mine.keys() & area.routes.keys()  # a listener and its routes have one name
            self._redirected[key] = Redirected(listeners, frozenset(routes))
        return self._redirected[key]

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

    def outbound_routes(self, name: str, who: Caller, hosts: proxy.Hosts) -> wire.Resource:
        """Return the route configuration of what a caller sees through `hosts`."""
        key = (who, hosts)
        if key not in self._routes:
            virtual_hosts = [
                host
                for other, service in self._visible(who.namespace, (hosts,))
                for host in self._areas[other].hosts[service].of(who)
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
            gate = gateway.source(self._mesh, self._gateways, source.workload)
            if old is None or old.source != (gate or source):
                self._proxies[key] = (
                    proxy.standing(gate, self._parameters) if gate else proxy.translate(area, source, self._parameters)
                )
            self._proxies_checked.add(key)
        return self._proxies[key]

    def _cluster_set(self, who: Caller, hosts: frozenset[proxy.Hosts]) -> ClusterSet:
        if not any(host.startswith("./") for patterns in hosts for host in patterns):
            who = callers.narrowed(who, *self._deciding.clusters)
        key = (who, hosts)
        if key not in self._clusters:
            by_name: dict[str, wire.Resource] = {}
            for other, service in self._visible(who.namespace, tuple(hosts)):
                by_name |= self._areas[other].clusters[service].of(who)
            self._clusters[key] = ClusterSet(by_name, frozenset().union(*(made.leads for made in by_name.values())))
        return self._clusters[key]

    def _visible(self, namespace: str, patterns: tuple[proxy.Hosts, ...]) -> Iterator[tuple[str, str]]:
        """List (namespace, service) of what any of the patterns lets a namespace see, in the order of names."""
        split = [host.split("/", 1) for hosts in patterns for host in hosts]
        wanted = [(namespace if where == "." else where, host) for where, host in split]
        for other in sorted(self._areas):
            here = {host for where, host in wanted if where in ("*", other)}
            for service in sorted(self._areas[other].clusters):
                host = service if "." in service else host_of(service, other)  # one outside has its own name
                if "." in service and external.owner(self._describing[service], namespace) != other:
                    continue  # another namespace's entry for the host holds
                if "*" in here or host in here or any(each[:2] == "*." and host.endswith(each[1:]) for each in here):
                    yield other, service


class View:
    """What one proxy is to have: its own resources and the shared ones that it sees (`source.View`)."""

    __slots__ = ("_redirected", "_snapshot", "_who", "own", "revision", "shared")

    def __init__(
        self, snapshot: Snapshot, own: proxy.ProxyResources, who: Caller, shared: ClusterSet, redirected: Redirected
    ) -> None:
        self._snapshot, self.own, self._who = snapshot, own, who
        self.shared, self._redirected = shared, redirected
        self.revision = snapshot.revision  # the configuration's

    def version(self, _type_url: str) -> str:
        """Return the configuration's revision: it is the same in all replicas."""
        return str(self.revision)

    @property
    def virtual_hosts(self) -> VirtualHosts:
        """All virtual hosts as this workload sees them, for who has no proxy."""
        return self._snapshot.virtual_hosts(self._who)

    @property
    def hosts_mark(self) -> object:
        """The same while no virtual host changes."""
        return self._who, self._snapshot.routes_mark

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
        return self.own, self._who, self._snapshot.routes_mark, self._snapshot.serials[types.ROUTE]

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
                return changed | (shared.leads ^ self.shared.leads)
            case types.CLUSTER, (ClusterSet() as shared, self.own):
                return self._snapshot.clusters_changed(shared, self.shared)
            case types.ROUTE, (self.own, self._who, self._snapshot.routes_mark, int(serial)):
                return self._snapshot.changed_since(types.ROUTE, serial)
        return None

    def route(self, name: str) -> wire.Resource | None:
        """Return a route configuration of this proxy."""
        hosts = self.own.outbound.get(name)
        if hosts is None:
            own = self.own.routes.get(name)
            if own is not None or not self.own.redirecting:
                return own
            return self._snapshot.redirected_routes(name, self._who)
        return self._snapshot.outbound_routes(name, self._who, hosts)

    def endpoint(self, name: str) -> wire.Resource | None:
        """Return the endpoints that a cluster of this proxy asks for."""
        return self._snapshot.endpoint(name) if name in self.shared.leads else None


def _translated(
    area: meshes.Area, before: meshes.Area | None, previous: areas.AreaResources, parameters: names.Parameters
) -> areas.AreaResources:
    moved = areas.moved(area, before, previous, parameters) if before else None
    return moved or areas.translate(area, previous, parameters)


def _changed(
    old: Mapping[str, areas.AreaResources],
    new: Mapping[str, areas.AreaResources],
    part: Callable[[areas.AreaResources], Mapping[str, object]],
) -> Iterator[str]:
    for namespace in old.keys() | new.keys():
        before, after = old.get(namespace, areas.EMPTY), new.get(namespace, areas.EMPTY)
        if before is not after:
            yield from differing(part(before), part(after))


def differing(old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[str]:
    """Yield the names under which two tables have something else."""
    yield from old.keys() - new.keys()
    for name, resource in new.items():
        if old.get(name) is not resource:
            yield name
