"""A proxy as far as ADS goes: it asks as Envoy does, acknowledges everything, and keeps what it was told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
from envoys import eventually

from meshwright.api.envoy.config.cluster.v3.cluster_pb2 import Cluster
from meshwright.api.envoy.config.core.v3.base_pb2 import Node
from meshwright.api.envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from meshwright.api.envoy.config.listener.v3.listener_pb2 import Listener
from meshwright.api.envoy.config.route.v3.route_pb2 import RouteConfiguration
from meshwright.api.envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from meshwright.api.envoy.service.discovery.v3 import ads_pb2_grpc
from meshwright.api.envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest
from meshwright.core.grpc import Channel
from meshwright.core.identity import StaticIdentity, X509Identity, part_id
from meshwright.manager.xds import types
from meshwright.manager.xds.platform import node_id

_MESSAGES: dict[str, Any] = {
    types.CLUSTER: Cluster,
    types.ENDPOINT: ClusterLoadAssignment,
    types.LISTENER: Listener,
    types.ROUTE: RouteConfiguration,
}


class Proxy:
    """What a proxy has."""

    def __init__(self) -> None:
        self.resources: dict[str, dict[str, Any]] = {kind: {} for kind in _MESSAGES}
        self.responses = 0
        self.last: dict[str, list[str]] = {}  # names in the last response of a type

    def endpoints(self, service: str, port: int = 80) -> set[tuple[str, int, str, bool]] | None:
        """Return (address, port, zone, marked as plain text) of a service; None: the proxy knows no such cluster."""
        found = self.resources[types.ENDPOINT].get(f"outbound|{port}||{service}.svc.cluster.local")
        if found is None:
            return None
        return {
            (
                each.endpoint.address.socket_address.address,
                each.endpoint.address.socket_address.port_value,
                zone.locality.zone,
                bool(each.metadata.filter_metadata),
            )
            for zone in found.endpoints
            for each in zone.lb_endpoints
        }

    def weights(self, service: str) -> dict[str, int]:
        """Return how requests for a service are shared out, by the service that gets them."""
        found = self.resources[types.ROUTE].get(f"outbound|80||{service}.svc.cluster.local")
        if found is None:
            return {}
        action = found.virtual_hosts[0].routes[0].route
        shares = {each.name: each.weight.value for each in action.weighted_clusters.clusters}
        whole = shares or {action.cluster: 100}
        return {name.rpartition("|")[2].split(".")[0]: share for name, share in whole.items()}

    async def follow(self, identity: X509Identity, manager: str, node: str) -> None:
        """Ask until cancelled, again and again where the manager is away."""
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                async with Channel(manager, StaticIdentity(identity), peer=part_id("mesh.local", "manager")) as channel:
                    await self._stream(ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel), node)
            await asyncio.sleep(0.05)

    async def _stream(self, stub: Any, node: str) -> None:
        call = stub.StreamAggregatedResources()
        asked: dict[str, set[str]] = {kind: set() for kind in _MESSAGES}
        for kind in (types.CLUSTER, types.LISTENER):
            await call.write(DiscoveryRequest(node=Node(id=node), type_url=kind))
        while (response := await call.read()) is not grpc.aio.EOF:
            kind = response.type_url
            made = [_MESSAGES[kind].FromString(packed.value) for packed in response.resources]
            named = {getattr(each, "cluster_name", "") or each.name: each for each in made}
            if kind in (types.CLUSTER, types.LISTENER):
                self.resources[kind] = named
            else:
                self.resources[kind] |= named
            self.responses += 1
            self.last[kind] = sorted(named)
            await call.write(
                DiscoveryRequest(
                    type_url=kind,
                    resource_names=sorted(asked[kind]),
                    version_info=response.version_info,
                    response_nonce=response.nonce,
                )
            )
            for other, names in ((types.ENDPOINT, self._clusters()), (types.ROUTE, self._routes())):
                if names != asked[other]:
                    asked[other] = names
                    await call.write(DiscoveryRequest(type_url=other, resource_names=sorted(names)))

    def _clusters(self) -> set[str]:
        clusters = self.resources[types.CLUSTER].values()
        return {each.name for each in clusters if each.type == Cluster.EDS}

    def _routes(self) -> set[str]:
        names = set()
        for listener in self.resources[types.LISTENER].values():
            for chain in [*listener.filter_chains, listener.default_filter_chain]:
                for found in chain.filters:
                    if found.typed_config.Is(HttpConnectionManager.DESCRIPTOR):
                        manager = HttpConnectionManager.FromString(found.typed_config.value)
                        names.add(manager.rds.route_config_name)
        return names - {""}


@contextlib.asynccontextmanager
async def following(identity: X509Identity, manager: str, namespace: str, pod: str) -> AsyncIterator[Proxy]:
    """Run a pod's proxy for the length of the context."""
    proxy = Proxy()
    task = asyncio.create_task(proxy.follow(identity, manager, node_id(namespace, pod)))
    try:
        yield proxy
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


__all__ = ["Proxy", "eventually", "following"]
