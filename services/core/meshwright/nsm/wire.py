"""The wire's messages under one import.

One decision to know: inside a chain the protobuf messages themselves travel. They are the domain's own values, and a
copy into other classes would lose fields that a newer peer sent.
"""

from meshwright.api.networkservicemesh.connection_pb2 import (
    DELETE,
    DOWN,
    INITIAL_STATE_TRANSFER,
    RESELECT_REQUESTED,
    UP,
    UPDATE,
    Connection,
    ConnectionEvent,
    ConnectionEventType,
    Mechanism,
    MonitorScopeSelector,
    Path,
    PathSegment,
)
from meshwright.api.networkservicemesh.connection_pb2_grpc import (
    MonitorConnectionServicer,
    MonitorConnectionStub,
    add_MonitorConnectionServicer_to_server,
)
from meshwright.api.networkservicemesh.connectioncontext_pb2 import ConnectionContext, IPContext, Route
from meshwright.api.networkservicemesh.networkservice_pb2 import NetworkServiceRequest
from meshwright.api.networkservicemesh.networkservice_pb2_grpc import (
    NetworkServiceServicer,
    NetworkServiceStub,
    add_NetworkServiceServicer_to_server,
)
from meshwright.api.networkservicemesh.registry_pb2 import (
    Destination,
    Match,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceEndpointResponse,
    NetworkServiceLabels,
    NetworkServiceQuery,
    NetworkServiceResponse,
)
from meshwright.api.networkservicemesh.registry_pb2_grpc import (
    NetworkServiceEndpointRegistryServicer,
    NetworkServiceEndpointRegistryStub,
    NetworkServiceRegistryServicer,
    NetworkServiceRegistryStub,
    add_NetworkServiceEndpointRegistryServicer_to_server,
    add_NetworkServiceRegistryServicer_to_server,
)

__all__ = [
    "DELETE",
    "DOWN",
    "INITIAL_STATE_TRANSFER",
    "RESELECT_REQUESTED",
    "UP",
    "UPDATE",
    "Connection",
    "ConnectionContext",
    "ConnectionEvent",
    "ConnectionEventType",
    "Destination",
    "IPContext",
    "Match",
    "Mechanism",
    "MonitorConnectionServicer",
    "MonitorConnectionStub",
    "MonitorScopeSelector",
    "NetworkService",
    "NetworkServiceEndpoint",
    "NetworkServiceEndpointQuery",
    "NetworkServiceEndpointRegistryServicer",
    "NetworkServiceEndpointRegistryStub",
    "NetworkServiceEndpointResponse",
    "NetworkServiceLabels",
    "NetworkServiceQuery",
    "NetworkServiceRegistryServicer",
    "NetworkServiceRegistryStub",
    "NetworkServiceRequest",
    "NetworkServiceResponse",
    "NetworkServiceServicer",
    "NetworkServiceStub",
    "Path",
    "PathSegment",
    "Route",
    "add_MonitorConnectionServicer_to_server",
    "add_NetworkServiceEndpointRegistryServicer_to_server",
    "add_NetworkServiceRegistryServicer_to_server",
    "add_NetworkServiceServicer_to_server",
]
