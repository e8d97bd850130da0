"""Routes: who answers a request that names a service.

Outbound, one route configuration serves all workloads of a namespace that see the same hosts; its virtual hosts are
serialised once for each service. Inbound, one tells mixer for which service a request came.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import UInt32Value

from meshwright.api.envoy.config.core.v3.base_pb2 import Metadata
from meshwright.api.envoy.config.route.v3.route_components_pb2 import Route, RouteAction, RouteMatch, VirtualHost
from meshwright.api.envoy.config.route.v3.route_pb2 import RouteConfiguration
from meshwright.api.envoy.extensions.filters.http.ext_authz.v3.ext_authz_pb2 import CheckSettings, ExtAuthzPerRoute
from meshwright.manager.model.mesh import Area, Ingress, Port, Protocol, Service, Workload
from meshwright.manager.xds import action, names, retry, wire
from meshwright.manager.xds.action import Place

METADATA = "meshwright"  # the key of a route's metadata under which access logs find what the request was for
_ANSWER_BYTES = UInt32Value(value=1 << 20)  # of a direct response; objects aren't larger
_UNKNOWN = (
    "no service of the mesh that this workload may see has this host name: names are SERVICE, SERVICE.NAMESPACE and "
    "SERVICE.NAMESPACE.svc.cluster.local, each with or without :PORT\n"
)


def default_port(service: Service) -> Port | None:
    """Return the port that is meant when a host is named without one: 80, or else the first that speaks HTTP."""
    ports = [port for port in service.ports if port.protocol is not Protocol.OTHER]
    return next((port for port in ports if port.number == 80), ports[0] if ports else None)


def hosts(service: Service, port: Port, *, short: bool) -> list[str]:
    """Return the authorities that mean a service's port; `short` adds the bare name, for its own namespace."""
    whole = [service.host]
    if not service.external:
        whole += [f"{service.name}.{service.namespace}.svc", f"{service.name}.{service.namespace}"]
    known = [*whole, service.name] if short and not service.external else whole
    with_port = [f"{host}:{port.number}" for host in known]
    return [*with_port, *known] if port == default_port(service) else with_port


def outbound(place: Place, *, short: bool) -> VirtualHost:
    """Route a service's port to its workloads, or to where its routes lead."""
    return VirtualHost(
        name=f"{place.subject.service.host}:{place.port.number}",
        domains=hosts(place.subject.service, place.port, short=short),
        include_request_attempt_count=True,
        routes=_routes(place),
    )


def _routes(place: Place) -> list[Route]:
    stated = place.subject.http_routes(place.port, place.who)
    return [each for route in stated for each in action.routes(route, place)] if stated else action.default(place)


def redirected_configuration(place: Place) -> RouteConfiguration:
    """Route what a redirecting proxy takes for a service's port, whatever host it names."""
    host = outbound(place, short=False)
    host.domains[:] = ["*"]
    return RouteConfiguration(
        name=names.outbound(place.subject.service, place.port),
        virtual_hosts=[host],
        response_headers_to_remove=[retry.HEADER],
        max_direct_response_body_size_bytes=_ANSWER_BYTES,
    )


def outbound_configuration(name: str, virtual_hosts: Iterable[bytes]) -> wire.Resource:
    """Put serialised virtual hosts together; a host that no service has is answered with 404."""
    unknown = VirtualHost(
        name="unknown",
        domains=["*"],
        routes=[Route(match=RouteMatch(prefix="/"), direct_response=action.response(404, _UNKNOWN))],
    )
    configuration = RouteConfiguration(
        name=name,
        virtual_hosts=[unknown],
        response_headers_to_remove=[retry.HEADER],
        max_direct_response_body_size_bytes=_ANSWER_BYTES,
    )
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
    forward = RouteAction(cluster=names.inbound(ingress.number))
    # The caller's proxy repeats what fails, and may choose another endpoint for it; here it would only cost time.
    action.default_deadline(forward, ingress.protocol)
    host = VirtualHost(
        name=name,
        domains=domains,
        routes=[
            Route(
                match=RouteMatch(prefix="/"),
                route=forward,
                metadata=Metadata(filter_metadata={METADATA: known}),
            )
        ],
    )
    settings = CheckSettings(context_extensions=attributes)
    host.typed_per_filter_config["envoy.filters.http.ext_authz"].CopyFrom(
        wire.pack(ExtAuthzPerRoute(check_settings=settings))
    )
    return host
