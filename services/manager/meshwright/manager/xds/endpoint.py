"""Endpoints of a service's port: envoy.config.endpoint.v3.ClusterLoadAssignment, sent by name (EDS).

What has no proxy in front of it carries a mark (`PLAIN`), by which its cluster speaks plain text to it and to nobody
else.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from meshwright.api.envoy.config.core.v3.address_pb2 import Address, SocketAddress
from meshwright.api.envoy.config.core.v3.base_pb2 import Locality
from meshwright.api.envoy.config.endpoint.v3.endpoint_components_pb2 import Endpoint, LbEndpoint, LocalityLbEndpoints
from meshwright.api.envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from meshwright.manager.model import mesh

PLAIN = "plain"
_MATCH = "envoy.transport_socket_match"  # where Envoy looks for the endpoint's side of a transport socket match


def load_assignment(cluster: str, endpoints: Iterable[mesh.Endpoint]) -> ClusterLoadAssignment:
    """List where a service's port is served, zone by zone."""
    zones = groupby(sorted(endpoints, key=lambda endpoint: endpoint.zone), lambda endpoint: endpoint.zone)
    return ClusterLoadAssignment(cluster_name=cluster, endpoints=[_locality(zone, found) for zone, found in zones])


def _locality(zone: str, endpoints: Iterable[mesh.Endpoint]) -> LocalityLbEndpoints:
    return LocalityLbEndpoints(
        locality=Locality(zone=zone) if zone else None, lb_endpoints=[_endpoint(endpoint) for endpoint in endpoints]
    )


def _endpoint(endpoint: mesh.Endpoint) -> LbEndpoint:
    address = SocketAddress(address=endpoint.address, port_value=endpoint.port)
    found = LbEndpoint(endpoint=Endpoint(address=Address(socket_address=address)))
    if not endpoint.meshed:
        found.metadata.filter_metadata[_MATCH].update({PLAIN: True})
    return found
