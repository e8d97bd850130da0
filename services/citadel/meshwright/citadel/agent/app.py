"""The node agent, built top to bottom: own identity, line to citadel, rotation, socket."""

from __future__ import annotations

import asyncio

import structlog

from meshwright.api.envoy.service.secret.v3 import sds_pb2_grpc
from meshwright.api.spiffe.workload import workload_pb2_grpc
from meshwright.citadel import sockets
from meshwright.citadel.agent.rotation import Rotation
from meshwright.citadel.agent.sds import SecretDiscoveryServicer
from meshwright.citadel.agent.settings import AgentSettings
from meshwright.citadel.agent.tokens import Tokens
from meshwright.citadel.agent.upstream import Upstream
from meshwright.citadel.agent.workload_api import WorkloadApiServicer
from meshwright.citadel.agent.workloads import Workloads
from meshwright.core import clock as clocks
from meshwright.core import errors, identity, service
from meshwright.core import health as healths
from meshwright.core.grpc import Channel

_log = structlog.get_logger(__name__)


async def run(settings: AgentSettings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set."""
    clock = clocks.SystemClock()
    health = healths.Health("citadel", "listener")
    part = f"{settings.part}/node/{settings.node}" if settings.node else settings.part
    async with service.begun(settings, health, part=part) as own:
        if own.identity is None or settings.citadel is None:
            raise errors.ConfigError("no identity to ask citadel with", field="identity", remedy="give --identity")
        workloads = Workloads(settings.trust_domain, clock)
        channel = await own.stack.enter_async_context(
            Channel(settings.citadel, own.identity, peer=identity.part_id(settings.trust_domain, "citadel"))
        )
        upstream = Upstream(channel, workloads, health, clock)
        await own.stack.enter_async_context(Rotation(workloads, upstream, clock))
        own.spawn(upstream.run(), "follow registrations")

        # Everybody may connect, as SPIFFE means it: an identity is given to whom the kernel's word and a registration
        # make one. Who shouldn't even connect is kept out by the folder.
        server = sockets.server(settings.listen, sockets.EVERYBODY, settings, front=settings.grpc_front)
        workload_pb2_grpc.add_SpiffeWorkloadAPIServicer_to_server(
            WorkloadApiServicer(workloads, Tokens(workloads, upstream, clock)), server
        )
        sds_pb2_grpc.add_SecretDiscoveryServiceServicer_to_server(SecretDiscoveryServicer(workloads), server)
        address = await own.serve(server)
        health.set("listener", True)
        _log.info("agent_serving", address=address, trust_domain=settings.trust_domain, node=settings.node)
        await stop.wait()
