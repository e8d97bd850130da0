"""The node agent, built top to bottom: own identity, line to citadel, rotation, socket."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from meshwright.api.envoy.service.secret.v3 import sds_pb2_grpc
from meshwright.api.spiffe.workload import workload_pb2_grpc
from meshwright.citadel import sockets
from meshwright.citadel.agent.rotation import Rotation
from meshwright.citadel.agent.sds import SecretDiscoveryServicer
from meshwright.citadel.agent.settings import AgentSettings
from meshwright.citadel.agent.upstream import Upstream
from meshwright.citadel.agent.workload_api import WorkloadApiServicer
from meshwright.citadel.agent.workloads import Workloads
from meshwright.core import citadel_identity, errors, identity, logs, telemetry
from meshwright.core import clock as clocks
from meshwright.core import health as healths
from meshwright.core.admin import Admin
from meshwright.core.grpc import Channel
from meshwright.dataplane.grpc import NativeServer

_log = structlog.get_logger(__name__)


async def run(settings: AgentSettings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set."""
    logs.setup(settings.part, settings.log_level)
    clock = clocks.SystemClock()
    health = healths.Health("citadel", "listener")
    part = f"{settings.part}/node/{settings.node}" if settings.node else settings.part
    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        own = citadel_identity.source(settings, part=part)
        if own is None or settings.citadel is None:
            raise errors.ConfigError("no identity to ask citadel with", field="identity", remedy="give --identity")
        await stack.enter_async_context(own)
        await stack.enter_async_context(telemetry.setup(settings.part, settings, own))

        workloads = Workloads(settings.trust_domain, clock)
        channel = await stack.enter_async_context(
            Channel(settings.citadel, own, peer=identity.part_id(settings.trust_domain, "citadel"))
        )
        upstream = Upstream(channel, workloads, health, clock)
        await stack.enter_async_context(Rotation(workloads, upstream, clock))
        following = tasks.create_task(upstream.run(), name="follow registrations")

        def add(server: NativeServer) -> None:
            workload_pb2_grpc.add_SpiffeWorkloadAPIServicer_to_server(WorkloadApiServicer(workloads), server)
            sds_pb2_grpc.add_SecretDiscoveryServiceServicer_to_server(SecretDiscoveryServicer(workloads), server)
            healths.add_to_server(health, server)

        # Everybody may connect, as SPIFFE means it: an identity is given to whom the kernel's word and a registration
        # make one. Who shouldn't even connect is kept out by the folder.
        address = await stack.enter_async_context(sockets.serve(settings.listen, sockets.EVERYBODY, add))
        await stack.enter_async_context(Admin(settings.admin, health, own))
        health.set("listener", True)
        _log.info("agent_serving", address=address, trust_domain=settings.trust_domain, node=settings.node)
        await stop.wait()
        following.cancel()
