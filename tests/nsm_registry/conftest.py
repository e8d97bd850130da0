"""A registry on a real listener, and callers that speak to it as an original client does."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import fronts
from meshwright.core import grpc as mesh_grpc
from meshwright.core import settings as core_settings
from meshwright.core.clock import ManualClock
from meshwright.core.health import Health
from meshwright.core.identity import StaticIdentity, X509Identity
from meshwright.core.store import MemoryStore, Store
from meshwright.nsm import registry_path, tokens, wire
from meshwright.nsm.registry_path import RegistryPath
from meshwright.nsm_registry.app import Registry
from meshwright.nsm_registry.settings import Settings
from pki import Pki

sys.path.insert(0, str(Path(__file__).parent))  # tests import `nsm_node` beside this file

LIFETIME = timedelta(minutes=10)


@dataclass
class Caller:
    """One identity that calls the registry."""

    svid: X509Identity
    registry: X509Identity
    channel: mesh_grpc.Channel
    clock: ManualClock
    path: RegistryPath | None = field(default_factory=RegistryPath)

    def metadata(self, **change: Any) -> list[tuple[str, str]]:
        until = self.clock.now() + change.get("lifetime", LIFETIME)
        token = tokens.issue(change.get("signer", self.svid), change.get("audience", self.registry.spiffe_id), until)
        path = change.get("path", self.path.dump() if self.path else None)
        sent = [(tokens.METADATA, token.text)] if change.get("token", True) else []
        return sent + ([(registry_path.METADATA, path)] if path is not None else [])

    async def register(self, message: Any, **change: Any) -> Any:
        return await self.stub(message).Register(message, metadata=self.metadata(**change))

    async def unregister(self, message: Any, **change: Any) -> Any:
        return await self.stub(message).Unregister(message, metadata=self.metadata(**change))

    async def find(self, wanted: Any) -> list[Any]:
        return [getattr(found, _field(wanted)) async for found in self.stream(wanted)]

    def stream(self, wanted: Any, *, watch: bool = False) -> Any:
        if isinstance(wanted, wire.NetworkService):
            return self.stub(wanted).Find(wire.NetworkServiceQuery(network_service=wanted, watch=watch))
        return self.stub(wanted).Find(wire.NetworkServiceEndpointQuery(network_service_endpoint=wanted, watch=watch))

    def stub(self, message: Any) -> Any:
        if isinstance(message, wire.NetworkService):
            return wire.NetworkServiceRegistryStub(self.channel)
        return wire.NetworkServiceEndpointRegistryStub(self.channel)


def _field(message: Any) -> str:
    return "network_service" if isinstance(message, wire.NetworkService) else "network_service_endpoint"


class Mesh:
    """A registry with its clock and store; `replica` starts another on the same store."""

    def __init__(self, pki: Pki, options: dict[str, Any]) -> None:
        self.pki, self.options = pki, options
        self.clock = ManualClock(pki.certificate.not_valid_before_utc + timedelta(minutes=1))
        self.store: Store = MemoryStore()
        self.svid = pki.part("nsm-registry")
        self.registry: Registry
        self._ends: list[Callable[[], Awaitable[None]]] = []
        self.address = ""

    async def replica(self) -> str:
        settings = core_settings.load(Settings, ["--insecure-loopback", *self.options.get("arguments", ())])
        self.registry = Registry(settings, self.store, StaticIdentity(self.svid), self.clock)
        follows = [
            asyncio.create_task(records.follow(Health()))
            for records in (self.registry.services, self.registry.endpoints)
        ]
        await self.registry.loaded()
        server = mesh_grpc.Server("127.0.0.1:0", StaticIdentity(self.svid), front=fronts.CURRENT)
        self.registry.add_to(server)
        self.address = await server.start()

        async def end() -> None:
            await server.stop(0)
            for task in follows:
                task.cancel()
            await asyncio.gather(*follows, return_exceptions=True)

        self._ends.append(end)
        return self.address

    def caller(self, svid: X509Identity, address: str = "") -> Caller:
        channel = mesh_grpc.Channel(address or self.address, StaticIdentity(svid), peer=self.svid.spiffe_id)
        self._ends.insert(0, channel.close)
        return Caller(svid, self.svid, channel, self.clock)

    async def end(self) -> None:
        for end in self._ends:
            await end()


@pytest.fixture
async def mesh(pki: Pki, request: pytest.FixtureRequest) -> AsyncIterator[Mesh]:
    mesh = Mesh(pki, getattr(request, "param", {}))
    await mesh.replica()
    yield mesh
    await mesh.end()
