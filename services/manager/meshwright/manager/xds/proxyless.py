"""What gRPC's own xDS clients get of a mesh (gRFC A27, A28, A29): routes, clusters and endpoints without a proxy.

One decision to know: it is cut from what Envoys get, resource by resource, so that both always do the same. What gRPC
would refuse or not understand is left out; what it wants besides is put in. Each is made once for all clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from meshwright.api.envoy.config.cluster.v3.cluster_pb2 import Cluster
from meshwright.api.envoy.config.core.v3.config_source_pb2 import ApiVersion
from meshwright.api.envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from meshwright.api.envoy.config.listener.v3.listener_pb2 import Listener
from meshwright.api.envoy.config.route.v3.route_components_pb2 import Route, RouteAction, VirtualHost, WeightedCluster
from meshwright.api.envoy.config.route.v3.route_pb2 import RouteConfiguration
from meshwright.api.envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from meshwright.api.envoy.extensions.transport_sockets.tls.v3.tls_pb2 import UpstreamTlsContext
from meshwright.api.envoy.service.discovery.v3.discovery_pb2 import DiscoveryResponse
from meshwright.api.envoy.type.matcher.v3.string_pb2 import StringMatcher
from meshwright.manager.xds import filters, types, wire
from meshwright.manager.xds.snapshot import View

_KEPT = 20_000  # resources of each kind
_NOBODY = "spiffe://nobody"


class ProxylessView:
    """A mesh as one gRPC client sees it (`source.View`).

    Listeners have the names that channels are made for (`xds:///catalog.shop:80`). `provider` is the certificate
    provider of the client's bootstrap; without one it gets no transport security, which it would refuse.
    """

    def __init__(self, view: View, provider: str) -> None:
        self._view, self._provider = view, provider
        self.revision = view.revision

    def version(self, type_url: str) -> str:
        """Return the configuration's revision."""
        return self._view.version(type_url)

    def serves(self, type_url: str) -> bool:
        """Whether a mesh has resources of a type."""
        return self._view.serves(type_url)

    def mark(self, type_url: str) -> object:
        """Return what the resources are made of."""
        if type_url in (types.LISTENER, types.ROUTE):
            return self._view.hosts_mark
        return self._view.mark(type_url)

    def find(self, type_url: str, name: str) -> wire.Resource | None:
        """Return a resource by name."""
        if type_url == types.LISTENER:
            route = self._view.virtual_hosts.by_domain.get(name)
            return _listener(name, route) if route else None
        if type_url == types.ROUTE:
            host = self._view.virtual_hosts.by_name.get(name)
            return _routes(name, host) if host else None
        found = self._view.find(type_url, name)
        if found is None:
            return None
        return _cluster(found, self._provider) if type_url == types.CLUSTER else _endpoints(found)

    def all(self, type_url: str) -> Mapping[str, wire.Resource]:
        """Return nothing: gRPC's clients ask by name."""
        return {}

    def leads(self, _type_url: str) -> frozenset[str]:
        """Return nothing, as `all`."""
        return frozenset()

    def changed_since(self, type_url: str, mark: object) -> Any:
        """Return the names of what changed since a mark; None when it can't be told."""
        if type_url in (types.LISTENER, types.ROUTE):
            return None
        return self._view.changed_since(type_url, mark)


def _message(resource: wire.Resource, message: Any) -> Any:
    message.MergeFromString(DiscoveryResponse.FromString(resource.body).resources[0].value)
    return message


@lru_cache(maxsize=_KEPT)
def _listener(name: str, route: str) -> wire.Resource:
    manager = HttpConnectionManager(http_filters=[filters.router()])
    manager.rds.route_config_name = route
    manager.rds.config_source.ads.SetInParent()
    manager.rds.config_source.resource_api_version = ApiVersion.V3
    listener = Listener(name=name)
    listener.api_listener.api_listener.CopyFrom(wire.pack(manager))
    return wire.resource(name, listener)


@lru_cache(maxsize=_KEPT)
def _routes(name: str, serialised: bytes) -> wire.Resource:
    host = VirtualHost.FromString(serialised)
    routes = [_route(route) for route in host.routes]
    kept = VirtualHost(name=host.name, domains=["*"], routes=routes)
    return wire.resource(name, RouteConfiguration(name=name, virtual_hosts=[kept]))


def _route(given: Route) -> Route:
    route = Route(match=given.match)
    if not given.HasField("route"):
        route.non_forwarding_action.SetInParent()  # a proxy would answer by itself; the call fails
        return route
    action = given.route
    kept = RouteAction(hash_policy=action.hash_policy)
    if action.HasField("weighted_clusters"):
        for one in action.weighted_clusters.clusters:
            kept.weighted_clusters.clusters.append(WeightedCluster.ClusterWeight(name=one.name, weight=one.weight))
    elif action.cluster:
        kept.cluster = action.cluster
    if action.HasField("timeout"):
        kept.max_stream_duration.max_stream_duration.CopyFrom(action.timeout)
    if action.HasField("retry_policy"):
        kept.retry_policy.retry_on = action.retry_policy.retry_on
        if action.retry_policy.HasField("num_retries") and action.retry_policy.num_retries.value:
            kept.retry_policy.num_retries.CopyFrom(action.retry_policy.num_retries)
    route.route.CopyFrom(kept)
    return route


@lru_cache(maxsize=_KEPT)
def _cluster(resource: wire.Resource, provider: str) -> wire.Resource:
    given = _message(resource, Cluster())
    kept = Cluster(name=given.name, type=given.type, eds_cluster_config=given.eds_cluster_config)
    if given.lb_policy == Cluster.RING_HASH:
        kept.lb_policy = Cluster.RING_HASH
        kept.ring_hash_lb_config.CopyFrom(given.ring_hash_lb_config)
    for limits in given.circuit_breakers.thresholds:
        if limits.HasField("max_requests"):
            kept.circuit_breakers.thresholds.add(priority=limits.priority).max_requests.CopyFrom(limits.max_requests)
    if provider and given.HasField("transport_socket"):
        _secure(given, kept, provider)
    return wire.resource(resource.name, kept)


def _secure(given: Cluster, kept: Cluster, provider: str) -> None:
    tls = UpstreamTlsContext.FromString(given.transport_socket.typed_config.value)
    wanted = UpstreamTlsContext()
    common = wanted.common_tls_context
    common.tls_certificate_provider_instance.instance_name = provider
    validation = common.combined_validation_context.default_validation_context
    validation.ca_certificate_provider_instance.instance_name = provider
    known = tls.common_tls_context.combined_validation_context.default_validation_context
    # Without matchers gRPC would accept any identity of the mesh; whom a proxy knows otherwise it can't check.
    matchers = [one.matcher for one in known.match_typed_subject_alt_names]
    validation.match_subject_alt_names.extend(matchers or [StringMatcher(exact=_NOBODY)])
    kept.transport_socket.name = "envoy.transport_sockets.tls"
    kept.transport_socket.typed_config.CopyFrom(wire.pack(wanted))


@lru_cache(maxsize=_KEPT)
def _endpoints(resource: wire.Resource) -> wire.Resource:
    assignment = _message(resource, ClusterLoadAssignment())
    for locality in assignment.endpoints:
        if not locality.HasField("load_balancing_weight"):  # gRPC takes no notice of a locality without one
            locality.load_balancing_weight.value = max(1, len(locality.lb_endpoints))
        locality.locality.SetInParent()
    return wire.resource(resource.name, assignment)
