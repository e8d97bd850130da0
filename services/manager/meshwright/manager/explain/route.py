"""Which route takes a request that a workload makes, why those before it don't, and what becomes of the request.

One decision to know: it is told from the same model, in the same order, as proxies' routes are made from; but nothing
of what proxies have is read, so that an explanation is the same whether they are there or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from meshwright.core import errors
from meshwright.core.config import Key
from meshwright.manager.explain.request import Request, failing
from meshwright.manager.model.domain import DOMAIN, host_of, service_of
from meshwright.manager.model.mesh import Area, Mesh, Port, Protocol, Proxy, Service
from meshwright.manager.model.routing import MESH, Backend, Destination, HttpMatch, HttpRoute, Routes
from meshwright.manager.xds import caller as callers
from meshwright.manager.xds.route import default_port

_NOBODY = Key("", "", "", "")


@dataclass(frozen=True, slots=True)
class Step:
    """One route; `reasons` say for each of its matches which condition failed, or that all hold."""

    route: str
    taken: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Share:
    """Where some of the requests go."""

    host: str
    port: int
    percent: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What becomes of a request, and why."""

    host: str
    port: int
    steps: tuple[Step, ...]
    answer: str
    shares: tuple[Share, ...] = ()


def explain(mesh: Mesh, request: Request, namespace: str, workload: str) -> Explanation:
    """Explain a request of a workload; NotFound when there is no such workload."""
    request.checked()
    area = mesh.areas.get(namespace)
    if area is None or workload not in area.workloads:
        raise errors.NotFound(f"there is no workload {workload} in namespace {namespace}: see 'meshwright status'")
    name, port_text = _split(request.authority)
    found = _service(mesh, name, namespace)
    if found is None:
        return Explanation(name, 0, (), f"no service of the mesh is called {name}: the caller's proxy answers with 404")
    owner, service = found
    port = _port(service, port_text)
    if port is None:
        ports = ", ".join(str(each.number) for each in service.ports)
        answer = f"{service.host} has no such port for requests (it has {ports}): the proxy answers with 404"
        return Explanation(service.host, 0, (), answer)
    if unseen := _unseen(area, workload, owner, service):
        return Explanation(service.host, port.number, (), unseen)
    steps, winner = _tried(area, workload, owner, service, port, request)
    if winner is None:
        return Explanation(
            service.host, port.number, tuple(steps), "no route takes it: the caller's proxy answers with 404"
        )
    answer, shares = _outcome(mesh, winner, service, port)
    return Explanation(service.host, port.number, tuple(steps), answer, tuple(shares))


def _tried(
    area: Area, workload: str, owner: Area, service: Service, port: Port, request: Request
) -> tuple[list[Step], HttpRoute | None]:
    spoken = owner.said_of(service.name)
    routes = spoken.http(port.number, area.namespace)
    steps = [
        Step(", ".join(map(str, sorted(claim.routes.origins))), False, (_unheard(claim.routes, area, port, routes),))
        for claim in spoken.claims
        if claim.routes.http and not any(route in routes for route in claim.routes.http)
    ]
    if not routes:
        own = Backend(Destination(service.host))
        steps.append(Step(f"Service {service.namespace}/{service.name}", True, ("no object says anything else",)))
        return steps, HttpRoute(origin=_NOBODY, backends=(own,))
    for number, route in enumerate(routes):
        reasons = [_reason(match, area, workload, port, request) for match in route.matches or (HttpMatch(),)]
        taken = "" in reasons
        title = f"{route.origin} route {route.name or f'#{number + 1}'}"
        steps.append(Step(title, taken, ("all its conditions hold",) if taken else tuple(reasons)))
        if taken:
            return steps, route
    return steps, None


def _reason(match: HttpMatch, area: Area, workload: str, port: Port, request: Request) -> str:
    if match.port not in (None, port.number):
        return f"port {port.number} isn't {match.port}"
    if match.gateways and MESH not in match.gateways:
        return f"is for requests that come in by {', '.join(match.gateways)}"
    who = match.callers
    if who is not None and not callers.caller(area, workload, [who]).fulfils:
        labels = ", ".join(f"{name}={value}" for name, value in who.labels)
        parts = [
            f"namespace {who.namespace}" if who.namespace else "",
            f"labels {labels}" if labels else "",
            f"service account {who.service_account}" if who.service_account else "",
            f"service {who.service}" if who.service else "",
        ]
        return f"the caller isn't one with {' and '.join(filter(None, parts))}"
    return failing(match, request)


def _unheard(routes: Routes, area: Area, port: Port, winners: tuple[HttpRoute, ...]) -> str:
    if routes.exported is not None and area.namespace not in routes.exported:
        return f"isn't for callers of namespace {area.namespace}"
    if routes.ports is not None and port.number not in routes.ports:
        return f"is for other ports than {port.number}"
    return f"has no effect for this caller: {winners[0].origin} comes first" if winners else "says nothing of requests"


def _outcome(mesh: Mesh, route: HttpRoute, service: Service, port: Port) -> tuple[str, list[Share]]:
    fault = route.fault
    before = ""
    if fault and fault.delay_percent:
        before += f"{fault.delay_percent:g} % are held up for {fault.delay_seconds:g} s; "
    if fault and fault.abort_percent:
        status = fault.http_status or f"gRPC status {fault.grpc_status}"
        before += f"{fault.abort_percent:g} % are answered with {status} on purpose; "
    if route.redirect is not None:
        return f"{before}it is redirected with {route.redirect.status}", []
    if route.response is not None:
        return f"{before}it is answered with {route.response.status}", []
    total = sum(backend.weight for backend in route.backends)
    if not total:
        return f"{before}nobody is named who answers: it gets 500", []
    shares = [_share(mesh, backend, total, port) for backend in route.backends if backend.weight]
    return f"{before}it goes to {service.host}" if route.origin is _NOBODY else f"{before}it is sent on", shares


def _share(mesh: Mesh, backend: Backend, total: int, port: Port) -> Share:
    wanted = backend.destination
    number = wanted.port or port.number
    labels = ", ".join(f"{name}={value}" for name, value in wanted.labels)
    parts = [
        f"subset {wanted.subset}" if wanted.subset else "",
        f"workloads with {labels}" if labels else "",
        backend.fault,
        "" if backend.fault else _standing(mesh, wanted.host, number),
    ]
    return Share(wanted.host, number, 100 * backend.weight / total, ", ".join(filter(None, parts)))


def _standing(mesh: Mesh, host: str, number: int) -> str:
    found = service_of(host)
    if found is None:
        return "outside of the mesh"
    area = mesh.areas.get(found[0])
    if area is None or found[1] not in area.services:
        return "it doesn't exist: these requests fail"
    count = len(area.endpoints.get((found[1], number), ()))
    return f"{count} endpoint{'s' if count != 1 else ''}" if count else "nobody answers there: these requests fail"


def _unseen(area: Area, workload: str, owner: Area, service: Service) -> str:
    if area.workloads[workload].proxy is not Proxy.SOCKETS:
        return ""
    sidecars = [area.sidecars[name] for name in area.sidecars_of.get(workload, ())]
    patterns = [host for sidecar in sidecars for egress in sidecar.egress for host in egress.hosts]
    if not patterns:
        return f"{workload} has no Sidecar with egress: it can't call anybody"
    for pattern in patterns:
        where, _, host = pattern.partition("/")
        if (area.namespace if where == "." else where) in ("*", owner.namespace) and host in ("*", service.host):
            return ""
    return f"the Sidecar of {workload} doesn't let it see {service.host}: its proxy answers with 404"


def _split(authority: str) -> tuple[str, str]:
    host, colon, port = authority.rpartition(":")
    return (host, port) if colon and port.isdecimal() else (authority, "")


def _service(mesh: Mesh, name: str, namespace: str) -> tuple[Area, Service] | None:
    for whole in _wholes(name.lower(), namespace):
        found = service_of(whole)
        area = mesh.areas.get(found[0]) if found else None
        if found and area and found[1] in area.services:
            return area, area.services[found[1]]
    return None


def _wholes(name: str, namespace: str) -> Iterator[str]:
    if name.endswith(f".{DOMAIN}"):
        yield name
    elif name.endswith(".svc"):
        yield f"{name.removesuffix('.svc')}.{DOMAIN}"
    elif "." in name:
        yield f"{name}.{DOMAIN}"
    else:
        yield host_of(name, namespace)


def _port(service: Service, text: str) -> Port | None:
    if not text:
        return default_port(service)
    known = (port for port in service.ports if port.protocol is not Protocol.OTHER)
    return next((port for port in known if str(port.number) == text), None)
