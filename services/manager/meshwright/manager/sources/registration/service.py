"""meshwright.registration.v1.RegistrationService: who calls is what is registered."""

from __future__ import annotations

from typing import Any

from meshwright.api.registration.v1 import registration_pb2, registration_pb2_grpc
from meshwright.core import errors
from meshwright.core.grpc import peer_id
from meshwright.manager.sources.registration.instance import Instance
from meshwright.manager.sources.registration.leases import Leases


class RegistrationService(registration_pb2_grpc.RegistrationServiceServicer):
    """The servicer."""

    def __init__(self, leases: Leases, trust_domain: str) -> None:
        self._leases, self._trust_domain = leases, trust_domain

    async def Register(self, request: Any, context: Any) -> Any:
        """Put an instance of the caller's into the mesh."""
        namespace, account = self._caller(context)
        ports, labels = dict(request.ports), dict(request.labels)
        instance = Instance(namespace, account, request.name, request.address, ports, labels)
        ttl = await self._leases.register(instance, request.ttl_seconds)
        return registration_pb2.RegisterResponse(namespace=namespace, service_account=account, ttl_seconds=ttl)

    async def Renew(self, request: Any, context: Any) -> Any:
        """Let an instance's time begin anew."""
        ttl = self._leases.renew(*self._caller(context), request.name)
        return registration_pb2.RenewResponse(ttl_seconds=ttl)

    async def Deregister(self, request: Any, context: Any) -> Any:
        """Take an instance out of the mesh."""
        await self._leases.deregister(*self._caller(context), request.name)
        return registration_pb2.DeregisterResponse()

    def _caller(self, context: Any) -> tuple[str, str]:
        identity = peer_id(context) or ""
        parts = identity.removeprefix(f"spiffe://{self._trust_domain}/").split("/")
        if identity.startswith(f"spiffe://{self._trust_domain}/") and len(parts) == 4 and parts[::2] == ["ns", "sa"]:
            return parts[1], parts[3]
        raise errors.Forbidden(f"{identity or 'a caller without identity'} is no workload of {self._trust_domain}")
