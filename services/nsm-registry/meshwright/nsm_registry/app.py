"""nsm-registry, built top to bottom: store, directories, the chain of a registration, server.

The order of the chain is the program: who registers, whether the object can be kept, how long it lives, who owns it.
"""

from __future__ import annotations

import asyncio
import functools
from datetime import timedelta

import structlog

from meshwright.core import clock as clocks
from meshwright.core import health as healths
from meshwright.core import service, store
from meshwright.core.clock import Clock
from meshwright.core.grpc import Server
from meshwright.core.identity import IdentitySource
from meshwright.core.store import Store
from meshwright.nsm import metrics, wire
from meshwright.nsm_registry.registry import kinds, servicers
from meshwright.nsm_registry.registry.authorize import Authorize
from meshwright.nsm_registry.registry.chain import Chain
from meshwright.nsm_registry.registry.check import Check
from meshwright.nsm_registry.registry.directory import Directory
from meshwright.nsm_registry.registry.expiry import Expiry
from meshwright.nsm_registry.registry.keep import Keep
from meshwright.nsm_registry.registry.records import Records
from meshwright.nsm_registry.registry.times import SetTimes
from meshwright.nsm_registry.settings import Settings

log = structlog.get_logger(__name__)


class Registry:
    """Everything but listener and process: the directories on a store, with their chains."""

    def __init__(self, settings: Settings, facts: Store, identity: IdentitySource | None, clock: Clock) -> None:
        lifetime = timedelta(seconds=settings.max_token_lifetime)
        authorize = Authorize(identity, settings.manager_ids(), lifetime=lifetime)
        self.services = Records(facts, Directory(kinds.SERVICES))
        self.endpoints = Records(facts, Directory(kinds.ENDPOINTS))
        self.expiry = Expiry(self.endpoints, clock, ownership=timedelta(seconds=settings.name_ownership))
        service_chain = Chain(
            authorize,
            Check(self.services.directory, limit=settings.max_services),
            Keep(self.services),
        )
        endpoint_chain = Chain(
            authorize,
            Check(self.endpoints.directory, limit=settings.max_endpoints),
            SetTimes(self.endpoints.directory, default=timedelta(seconds=settings.default_expiration)),
            Keep(self.endpoints),
        )
        for records in (self.services, self.endpoints):
            directory = records.directory
            metrics.REGISTERED.labels(directory.kind.name).set_function(functools.partial(len, directory))
            metrics.WATCHERS.labels(directory.kind.name).set_function(functools.partial(len, directory.watchers))
        self._service_servicer = servicers.NetworkServiceServicer(service_chain, self.services.directory.stream, clock)
        self._endpoint_servicer = servicers.NetworkServiceEndpointServicer(
            endpoint_chain, self.endpoints.directory.stream, clock
        )

    async def loaded(self) -> None:
        """Return when both directories hold what the store has."""
        await self.services.loaded.wait()
        await self.endpoints.loaded.wait()

    def add_to(self, server: Server) -> None:
        """Serve both registries."""
        wire.add_NetworkServiceRegistryServicer_to_server(self._service_servicer, server)
        wire.add_NetworkServiceEndpointRegistryServicer_to_server(self._endpoint_servicer, server)


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set."""
    health = healths.Health("store", "listener")
    async with service.begun(settings, health) as own:
        facts = await own.stack.enter_async_context(store.connect(settings))
        registry = Registry(settings, facts, own.identity, clocks.SystemClock())
        own.spawn(registry.services.follow(health), "follow services")
        own.spawn(registry.endpoints.follow(health), "follow endpoints")
        own.spawn(registry.expiry.run(), "expire endpoints")

        # An empty directory would tell clients that their services are gone: first the store is read.
        loading = own.spawn(registry.loaded(), "load")
        stopping = own.spawn(stop.wait(), "stop")
        await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)

        # What a caller may change is decided by the chain.
        server = own.server([("/registry.", [f"spiffe://{settings.trust_domain}/*"])])
        registry.add_to(server)
        address = await own.serve(server)
        health.set("listener", True)
        log.info("registry.serving", address=address)
        await stop.wait()
