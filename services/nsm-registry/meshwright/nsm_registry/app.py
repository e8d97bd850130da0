"""nsm-registry, built top to bottom: store, directories, the chain of a registration, server.

The order of the chain is the program: who registers, whether the object can be kept, how long it lives, who owns it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from datetime import timedelta

import structlog

from meshwright.core import citadel_identity, logs, store, telemetry
from meshwright.core import clock as clocks
from meshwright.core import health as healths
from meshwright.core.admin import Admin
from meshwright.core.clock import Clock
from meshwright.core.grpc import Authorization, Server
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
    logs.setup(settings.part, settings.log_level)
    clock = clocks.SystemClock()
    health = healths.Health("store", "listener")
    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        identity = citadel_identity.source(settings)
        if identity is not None:
            await stack.enter_async_context(identity)
        await stack.enter_async_context(telemetry.setup(settings.part, settings, identity))
        facts = await stack.enter_async_context(store.connect(settings))

        registry = Registry(settings, facts, identity, clock)
        background = [
            tasks.create_task(registry.services.follow(health), name="follow services"),
            tasks.create_task(registry.endpoints.follow(health), name="follow endpoints"),
            tasks.create_task(registry.expiry.run(), name="expire endpoints"),
        ]

        await stack.enter_async_context(Admin(settings.admin, health, identity))
        # An empty directory would tell clients that their services are gone: first the store is read.
        loading = tasks.create_task(registry.loaded(), name="load")
        stopping = tasks.create_task(stop.wait(), name="stop")
        await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)

        server = Server(
            settings.listen,
            identity,
            front=settings.grpc_front,
            part=settings.part,
            authorize=_rules(settings.trust_domain),
        )
        registry.add_to(server)
        healths.add_to_server(health, server)
        address = await server.start()
        stack.push_async_callback(server.stop)
        health.set("listener", True)
        log.info("registry.serving", address=address)
        await stop.wait()
        for task in (*background, loading):
            task.cancel()


def _rules(trust_domain: str) -> Authorization:
    everyone = f"spiffe://{trust_domain}/*"  # what a caller may change is decided by the chain
    return Authorization([("/registry.", [everyone]), ("/grpc.health.v1.Health/", [everyone])])
