"""What is to be told about objects in force: references that lead nowhere, routes that have no effect.

`meshwright apply` prints them as warnings, and they stand in the status of custom resources. None of them keeps an
object out of force, because what it refers to may still come.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from meshwright.core.config import Key
from meshwright.manager.model.access import Access
from meshwright.manager.model.claims import ANYBODY
from meshwright.manager.model.domain import service_of
from meshwright.manager.model.meaning import Notice
from meshwright.manager.model.mesh import Area, Mesh, Service
from meshwright.manager.model.routing import Backend, Mirror, Routes
from meshwright.manager.model.traffic import TrafficPolicy, subsets_of

CONFLICTED = "Conflicted"
MISSING = "RefNotFound"


def notices(mesh: Mesh, keys: Collection[Key]) -> Iterator[Notice]:
    """Yield what is to be told about some objects, each thing once."""
    told = set()
    for namespace in sorted({key.namespace for key in keys if key.namespace}):
        area = mesh.areas.get(namespace)
        for notice in _of_area(mesh, area, keys) if area else ():
            if notice.key in keys and notice not in told:
                told.add(notice)
                yield notice


def _of_area(mesh: Mesh, area: Area, keys: Collection[Key]) -> Iterator[Notice]:
    yield from area.meaning.notices
    for access in area.meaning.access:
        if access.origin in keys:
            yield from _bindings(mesh, access)
    for routes in area.meaning.routes:
        if routes.origins.isdisjoint(keys):
            continue
        yield from _references(mesh, area, routes)
        found = service_of(routes.host)
        owner = mesh.areas.get(found[0]) if found else None
        if found and owner and found[1] in owner.services and found[1] in owner.spoken:
            ports = [port.number for port in owner.services[found[1]].ports]
            yield from owner.spoken[found[1]].conflicts(routes.host, ports)
    for policy in area.meaning.policies:
        if policy.origin in keys and _has_locality(policy):
            message = "where endpoints are isn't looked at yet: requests go to those of all localities alike"
            yield Notice(policy.origin, "", "UnsupportedValue", message)
        if policy.origin in keys and _is_missing(mesh, policy.host):
            yield Notice(
                policy.origin, "", MISSING, f"{_name(policy.host, area)} doesn't exist: no effect until it does"
            )


def _bindings(mesh: Mesh, access: Access) -> Iterator[Notice]:
    """Tell of names of callers that other namespaces don't have; of its own a dialect tells itself."""
    for rule in access.rules:
        for namespace, name in (reference for callers in rule.callers for reference in callers.bindings):
            other = mesh.areas.get(namespace)
            known = {each.name for each in other.meaning.bindings} if other else set()
            if namespace != access.origin.namespace and name not in known:
                message = (
                    f"IdentityBinding {name} of namespace {namespace} doesn't exist: it lets nobody in until it does"
                )
                yield Notice(access.origin, "", MISSING, message)


def _has_locality(policy: TrafficPolicy) -> bool:
    settings = [policy.settings, *(each for _, each in policy.ports)]
    for subset in policy.subsets:
        settings += [subset.settings, *(each for _, each in subset.ports)]
    return any(each.locality is not None and each.locality.enabled for each in settings)


def _references(mesh: Mesh, area: Area, routes: Routes) -> Iterator[Notice]:
    if _is_missing(mesh, routes.host):
        message = f"{_name(routes.host, area)} doesn't exist: its routes have no effect until it does"
        for key in sorted(routes.origins):
            yield Notice(key, routes.field, MISSING, message)
    root = _service(mesh, routes.host)
    for route in routes.all:
        yield from _backends(mesh, area, route.origin, root, route.backends)
    for http in routes.http:
        yield from _mirrors(mesh, area, http.origin, http.mirrors)


def _backends(
    mesh: Mesh, area: Area, key: Key, root: Service | None, backends: Collection[Backend]
) -> Iterator[Notice]:
    total = sum(backend.weight for backend in backends)
    for backend in backends:
        wanted = backend.destination
        name = _name(wanted.host, area)
        share = f"{100 * backend.weight / total:.3g} % of the requests" if backend.weight else ""
        service = _service(mesh, wanted.host)
        if _is_missing(mesh, wanted.host):
            consequence = f"{share} fail until it does" if share else "with weight 0 nothing is sent there"
            yield Notice(key, backend.field, MISSING, f"{name} doesn't exist: {consequence}")
        elif service is None:
            continue  # a host outside: who knows its ports
        elif wanted.subset and wanted.subset not in _subsets(mesh, area, wanted.host):
            consequence = f"{share} fail until one does" if share else "with weight 0 nothing is sent there"
            message = f"no policy names subset {wanted.subset} of {name} for callers here: {consequence}"
            yield Notice(key, backend.field, MISSING, message)
        elif wanted.port is not None:
            if wanted.port not in {port.number for port in service.ports}:
                consequence = f"{share} fail" if share else "with weight 0 nothing is sent there"
                yield Notice(key, backend.field, MISSING, f"{name} has no port {wanted.port}: {consequence}")
        elif root is not None and not (wanted.only_port and len(service.ports) == 1):
            missing = [port.number for port in root.ports if port.number not in {p.number for p in service.ports}]
            if missing:
                ports = ", ".join(map(str, missing))
                message = f"{name} has no port {ports} of {root.name}: it gets none of its requests"
                yield Notice(key, backend.field, MISSING, message)


def _mirrors(mesh: Mesh, area: Area, key: Key, mirrors: Iterable[Mirror]) -> Iterator[Notice]:
    for mirror in mirrors:
        if _is_missing(mesh, mirror.destination.host):
            name = _name(mirror.destination.host, area)
            yield Notice(key, "", MISSING, f"{name} doesn't exist: no copies of requests go there until it does")


def _subsets(mesh: Mesh, area: Area, host: str) -> Collection[str]:
    """Return the subsets of a service that are there for the callers of a namespace, whichever they are."""
    namespace, name = service_of(host) or ("", "")
    spoken = mesh.areas[namespace].said_of(name)
    return subsets_of(spoken.policies(area.namespace)).keys() | subsets_of(spoken.policies(ANYBODY)).keys()


def _service(mesh: Mesh, host: str) -> Service | None:
    found = service_of(host)
    area = mesh.areas.get(found[0]) if found else None
    return area.services.get(found[1]) if found and area else None


def _is_missing(mesh: Mesh, host: str) -> bool:
    """Whether a host would be a service of the mesh, and isn't there."""
    return service_of(host) is not None and _service(mesh, host) is None


def _name(host: str, area: Area) -> str:
    namespace, name = service_of(host) or ("", host)
    return f"service {name}" if namespace == area.namespace else f"service {name} of namespace {namespace}"


def referrers(mesh: Mesh, host: str) -> Iterator[Key]:
    """Yield the objects whose routes or policies name a host."""
    for area in mesh.areas.values():
        for routes in area.meaning.routes:
            if routes.host == host:
                yield from routes.origins
            else:
                for route in routes.all:
                    if any(backend.destination.host == host for backend in route.backends):
                        yield route.origin
        yield from (policy.origin for policy in area.meaning.policies if policy.host == host)
