"""Endpoints of a service's port: envoy.config.endpoint.v3.ClusterLoadAssignment, sent by name (EDS)."""

from __future__ import annotations

from collections.abc import Iterable

from meshwright.api.envoy.config.core.v3.address_pb2 import Address, SocketAddress
from meshwright.api.envoy.config.endpoint.v3.endpoint_components_pb2 import Endpoint, LbEndpoint, LocalityLbEndpoints
from meshwright.api.envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment


def load_assignment(cluster: str, addresses: Iterable[tuple[str, int]]) -> ClusterLoadAssignment:
    """List where a service's port is served."""
    endpoints = [
        LbEndpoint(endpoint=Endpoint(address=Address(socket_address=SocketAddress(address=address, port_value=port))))
        for address, port in addresses
    ]
    return ClusterLoadAssignment(
        cluster_name=cluster, endpoints=[LocalityLbEndpoints(lb_endpoints=endpoints)] if endpoints else []
    )
