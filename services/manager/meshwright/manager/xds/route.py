"""Routes: who answers a request that names a service.

Outbound, one route configuration serves all workloads of a namespace that see the same hosts; its virtual hosts are
serialised once for each service. Inbound, one tells mixer for which service a request came.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import UInt32Value

from meshwright.api.envoy.config.core.v3.base_pb2 import DataSource, Metadata
from meshwright.api.envoy.config.route.v3.route_components_pb2 import (
    DirectResponseAction,
    RetryPolicy,
    Route,
    RouteAction,
    RouteMatch,
    VirtualHost,
    WeightedCluster,
)
from meshwright.api.envoy.config.route.v3.route_pb2 import RouteConfiguration
from meshwright.api.envoy.extensions.filters.http.ext_authz.v3.ext_authz_pb2 import CheckSettings, ExtAuthzPerRoute
from meshwright.manager.model.claims import ANYBODY
from meshwright.manager.model.mesh import UNHEARD, Area, Ingress, Port, Protocol, Service, Workload
from meshwright.manager.model.routing import Backend
from meshwright.manager.xds import destination, names, retry, wire

METADATA = "meshwright"  # the key of a route's metadata under which access logs find what the request was for
_REQUEST_SECONDS = 60  # for HTTP/1.1 services; those of HTTP/2 carry calls of any length and their own deadlines


def default_port(service: Service) -> Port | None:
    """Return the port that is meant when a host is named without one: 80, or else the first that speaks HTTP."""
    ports = [port for port in service.ports if port.protocol is not Protocol.OTHER]
    return next((port for port in ports if port.number == 80), ports[0] if ports else None)


def hosts(service: Service, port: Port, *, short: bool) -> list[str]:
    """Return the authorities that mean a service's port; `short` adds the bare name, for its own namespace."""
    whole = [service.host, f"{service.name}.{service.namespace}.svc", f"{service.name}.{service.namespace}"]
    known = [*whole, service.name] if short else whole
    with_port = [f"{host}:{port.number}" for host in known]
    return [*with_port, *known] if port == default_port(service) else with_port


def outbound(area: Area, service: Service, port: Port, *, short: bool) -> VirtualHost:
    """Route a service's port to its workloads, or to where its routes lead."""
    host = VirtualHost(
        name=f"{service.host}:{port.number}",
        domains=hosts(service, port, short=short),
        include_request_attempt_count=True,
    )
    caller = area.namespace if short else ANYBODY
    routes = area.spoken.get(service.name, UNHEARD).http(port.number, caller)
    actions = [_split(area, route.backends, port) for route in routes] or [
        RouteAction(cluster=names.outbound(service, port))
    ]
    for action in actions:
        if action is None:
            host.routes.append(
                _answer(503, f"no route of {service.host} leads to a service that has port {port.number}\n")
            )
        else:
            _deadline(action, port.protocol)
            host.routes.extend(_with_retries(action))
    return host


def redirected_configuration(area: Area, service: Service, port: Port) -> RouteConfiguration:
    """Route what a redirecting proxy takes for a service's port, whatever host it names."""
    host = outbound(area, service, port, short=False)
    host.domains[:] = ["*"]
    return RouteConfiguration(
        name=names.outbound(service, port), virtual_hosts=[host], response_headers_to_remove=[retry.HEADER]
    )


def outbound_configuration(name: str, virtual_hosts: Iterable[bytes]) -> wire.Resource:
    """Put serialised virtual hosts together; a host that no service has is answered with 404."""
    unknown = VirtualHost(
        name="unknown",
        domains=["*"],
        routes=[
            _answer(
                404,
                "no service of the mesh that this workload may see has this host name: names are SERVICE, "
                "SERVICE.NAMESPACE and SERVICE.NAMESPACE.svc.cluster.local, each with or without :PORT\n",
            )
        ],
    )
    configuration = RouteConfiguration(name=name, virtual_hosts=[unknown], response_headers_to_remove=[retry.HEADER])
    extra = b"".join(wire.field(RouteConfiguration.VIRTUAL_HOSTS_FIELD_NUMBER, host) for host in virtual_hosts)
    return wire.resource(name, configuration, extra)


def inbound_configuration(name: str, area: Area, workload: Workload, ingress: Ingress) -> RouteConfiguration:
    """Route all that arrives at a port to the application, and say for which of its services it came."""
    served = [area.services[name] for name in area.services_of.get(workload.name, ())]
    general = min(served, key=lambda service: (len(service.selector), service.name), default=None)
    virtual_hosts = [
        _inbound_host(f"{service.host}:{port.number}", hosts(service, port, short=True), service, workload, ingress)
        for service, port in _ports_of(served, workload, ingress)
    ]
    virtual_hosts.append(_inbound_host("any", ["*"], general, workload, ingress))
    return RouteConfiguration(name=name, virtual_hosts=virtual_hosts, response_headers_to_remove=[retry.HEADER])


def _ports_of(services: Iterable[Service], workload: Workload, ingress: Ingress) -> Iterator[tuple[Service, Port]]:
    for service in services:
        for port in service.ports:
            if workload.target(port) == ingress.number:
                yield service, port


def _inbound_host(
    name: str, domains: list[str], service: Service | None, workload: Workload, ingress: Ingress
) -> VirtualHost:
    attributes = {
        "context.reporter.kind": "inbound",
        "destination.workload.name": workload.application,
        "destination.workload.namespace": workload.namespace,
    }
    if service is not None:
        attributes |= {
            "destination.service.host": service.host,
            "destination.service.name": service.name,
            "destination.service.namespace": service.namespace,
        }
    known = Struct()
    known.update(attributes)
    action = RouteAction(cluster=names.inbound(ingress.number))
    # The caller's proxy repeats what fails, and may choose another endpoint for it; here it would only cost time.
    _deadline(action, ingress.protocol)
    host = VirtualHost(
        name=name,
        domains=domains,
        routes=[
            Route(
                match=RouteMatch(prefix="/"),
                route=action,
                metadata=Metadata(filter_metadata={METADATA: known}),
            )
        ],
    )
    settings = CheckSettings(context_extensions=attributes)
    host.typed_per_filter_config["envoy.filters.http.ext_authz"].CopyFrom(
        wire.pack(ExtAuthzPerRoute(check_settings=settings))
    )
    return host


def _split(area: Area, backends: Iterable[Backend], port: Port) -> RouteAction | None:
    found = [(destination.cluster(area, backend, port), backend.weight) for backend in backends]
    shares = [(cluster, weight) for cluster, weight in found if cluster and weight]
    if not shares:
        return None
    if len(shares) == 1:
        return RouteAction(cluster=shares[0][0])
    weighted = [
        WeightedCluster.ClusterWeight(name=cluster, weight=UInt32Value(value=weight)) for cluster, weight in shares
    ]
    return RouteAction(weighted_clusters=WeightedCluster(clusters=weighted))


def _with_retries(action: RouteAction) -> list[Route]:
    repeatable = RouteMatch(prefix="/", headers=[retry.idempotent_methods()])
    return [
        Route(match=repeatable, route=_retrying(action, retry.idempotent())),
        Route(match=RouteMatch(prefix="/"), route=_retrying(action, retry.unreached())),
    ]


def _retrying(action: RouteAction, policy: RetryPolicy) -> RouteAction:
    copy = RouteAction()
    copy.CopyFrom(action)
    copy.retry_policy.CopyFrom(policy)
    return copy


def _deadline(action: RouteAction, protocol: Protocol) -> None:
    if protocol is Protocol.HTTP1:
        action.timeout.CopyFrom(Duration(seconds=_REQUEST_SECONDS))
    else:
        action.timeout.CopyFrom(Duration())
        action.max_stream_duration.grpc_timeout_header_max.CopyFrom(Duration())


def _answer(status: int, text: str) -> Route:
    return Route(
        match=RouteMatch(prefix="/"),
        direct_response=DirectResponseAction(status=status, body=DataSource(inline_string=text)),
    )
