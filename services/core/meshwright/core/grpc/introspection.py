"""What a server tells of itself: its health, and by reflection which services and messages it has.

One decision to know: whoever has an identity of the mesh may ask for health, because sidecars leave a replica by it;
reflection is for the platform's own identities, such as the administrator's.
"""

from __future__ import annotations

from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from meshwright.core.grpc.server import Server
from meshwright.core.health import Health, HealthServicer
from meshwright.core.identity import SYSTEM_NAMESPACE

_HEALTH = "/grpc.health.v1.Health/"
_REFLECTION = "/grpc.reflection."


def rules(trust_domain: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return who may ask, for a server's `Authorization`."""
    return (
        (_HEALTH, (f"spiffe://{trust_domain}/*",)),
        (_REFLECTION, (f"spiffe://{trust_domain}/ns/{SYSTEM_NAMESPACE}/sa/*",)),
    )


def add_to_server(server: Server, health: Health, *native: ServiceDescriptor) -> None:
    """Serve health and reflection of all that `server` has; call it last, before the start.

    `native` are the services that Rust answers.
    """
    natives = [service.full_name for service in native]
    health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(health, (*server.services, *natives)), server)
    reflection.enable_server_reflection((*server.services, *natives, reflection.SERVICE_NAME), server)
