"""A running citadel and node agents, on real sockets, for tests."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
from google.protobuf.duration_pb2 import Duration

import fronts
from meshwright.api.citadel.v1 import admin_pb2, admin_pb2_grpc, registration_pb2
from meshwright.citadel import app
from meshwright.citadel.agent import app as agent_app
from meshwright.citadel.agent.process import start_time
from meshwright.citadel.agent.settings import AgentSettings
from meshwright.citadel.settings import CitadelSettings
from meshwright.core.citadel_identity import CitadelIdentity
from meshwright.core.grpc import Channel
from meshwright.core.identity import part_id

DOMAIN = "mesh.local"
WEB = f"spiffe://{DOMAIN}/ns/shop/sa/web"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def insecure(target: str) -> grpc.aio.Channel:
    """Open a channel as any client of grpcio does: its authority is the percent-encoded path."""
    return grpc.aio.insecure_channel(target)


@dataclass
class Citadel:
    """A citadel's addresses, and its admin API as a launcher uses it."""

    folder: Path
    address: str
    admin: admin_pb2_grpc.AdminStub

    @property
    def socket(self) -> str:
        return f"unix:{self.folder}/citadel.sock"

    async def token(self, part: str, node: str = "") -> str:
        answer = await self.admin.MintToken(admin_pb2.MintTokenRequest(part=part, node=node))
        return str(answer.token)

    def identity(self, part: str, **options: Any) -> CitadelIdentity:
        return CitadelIdentity(part_id(DOMAIN, part), socket=self.socket, address=self.address, **options)

    async def register(
        self,
        spiffe_id: str = WEB,
        *,
        pid: int | None = None,
        ttl: float | None = None,
        selectors: Sequence[tuple[str, str]] = (),
        dns_names: Sequence[str] = (),
        node: str = "",
    ) -> str:
        """Register exactly the process `pid` (this one by default), as a launcher does; return the id."""
        pid = os.getpid() if pid is None else pid
        chosen = selectors or [("unix:pid", f"{pid}@{start_time(pid)}")]
        registration = registration_pb2.Registration(
            spiffe_id=spiffe_id,
            selectors=[registration_pb2.Selector(type=kind, value=value) for kind, value in chosen],
            dns_names=dns_names,
            node=node,
        )
        if ttl is not None:
            duration = Duration()
            duration.FromTimedelta(timedelta(seconds=ttl))
            registration.ttl.CopyFrom(duration)
        answer = await self.admin.Register(admin_pb2.RegisterRequest(registration=registration))
        return str(answer.id)

    async def unregister(self, registration_id: str) -> None:
        await self.admin.Unregister(admin_pb2.UnregisterRequest(id=registration_id))


@contextlib.asynccontextmanager
async def citadel(
    folder: Path, *, port: int | None = None, log_level: str = "error", **options: Any
) -> AsyncIterator[Citadel]:
    """Run a citadel until the context ends."""
    address = f"127.0.0.1:{port or free_port()}"
    settings = CitadelSettings(
        listen=address,
        grpc_front=fronts.CURRENT,
        admin_socket=f"unix:{folder}/citadel.sock",
        admin=f"unix:{folder}/citadel-health.sock",
        log_level=log_level,
        **options,
    )
    async with running(app.run, settings), Channel(f"unix:{folder}/citadel.sock", None) as channel:
        yield Citadel(folder, address, admin_pb2_grpc.AdminStub(channel))


@contextlib.asynccontextmanager
async def agent(of: Citadel, *, node: str = "") -> AsyncIterator[str]:
    """Run a node agent until the context ends; yield its socket as a gRPC target."""
    name = f"agent-{node}" if node else "agent"
    settings = AgentSettings(
        listen=f"unix:{of.folder}/{name}.sock",
        admin=f"unix:{of.folder}/{name}-health.sock",
        citadel=of.address,
        citadel_socket=of.socket,
        citadel_token=of.folder / f"{name}.token",
        node=node,
        log_level="error",
    )
    async with running(agent_app.run, settings):
        yield settings.listen


@contextlib.asynccontextmanager
async def running(run: Any, settings: Any) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(run(settings, stop))
    try:
        await ready(settings.admin, task)
        yield
    finally:
        stop.set()
        async with asyncio.timeout(15):
            await task


async def ready(address: str | None, task: asyncio.Task[None]) -> None:
    """Wait until the health listener says that the process serves."""
    assert address is not None
    transport = httpx.AsyncHTTPTransport(uds=address.removeprefix("unix:"))
    last = "no answer"
    try:
        async with asyncio.timeout(20), httpx.AsyncClient(transport=transport, base_url="http://local") as client:
            while not task.done():
                try:
                    answer = await client.get("/readyz")
                except httpx.TransportError as error:
                    last = repr(error)
                else:
                    if answer.status_code == 200:
                        return
                    last = answer.text
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not ready after 20 s: {last}") from None


async def until(condition: Any, seconds: float = 10.0) -> None:
    """Wait for a condition (called again and again) with a deadline."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
