"""Channels that ask their servers for their health (gRFC A17): only healthy ones get calls, as with grpc.aio's."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from serve_echo import AsyncEcho, EchoStub
from serve_rig import native_server

from meshwright.dataplane.grpc import ChannelOptions, NativeChannel

Status = health_pb2.HealthCheckResponse
SERVICE = "shop.Orders"
CHECKED = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": SERVICE}}


class Named(AsyncEcho):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    async def unary(self, request: str, context: Any) -> str:
        return self.name


Open = Callable[..., EchoStub]


@pytest.fixture(params=["native", "grpcio"])
async def open_stub(request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    """Return what opens a channel of either make to several addresses."""
    channels: list[Any] = []

    def opened(*addresses: str, config: dict[str, Any] = CHECKED) -> EchoStub:
        target = "ipv4:" + ",".join(addresses)
        if request.param == "native":
            options = ChannelOptions(first_back_off_seconds=0.05, longest_back_off_seconds=0.2)
            channels.append(NativeChannel(target, None, service_config=config, options=options))
        else:
            channels.append(grpc.aio.insecure_channel(target, [("grpc.service_config", json.dumps(config))]))
        return EchoStub(channels[-1])

    yield opened
    for channel in channels:
        await channel.close()


@contextlib.asynccontextmanager
async def checked(name: str, status: Any) -> AsyncIterator[tuple[HealthServicer, str]]:
    """A server that says how healthy it is."""
    health = HealthServicer()
    await health.set(SERVICE, status)
    add: Any = health_pb2_grpc.add_HealthServicer_to_server
    async with native_server(Named(name), add=lambda server: add(health, server)) as (_, address):
        try:
            yield health, address
        finally:
            await health.enter_graceful_shutdown()


async def answered_by(stub: EchoStub, names: set[str]) -> None:
    """Call until a round of calls is answered by just these."""
    async with asyncio.timeout(30):
        while True:
            found = {await stub.unary("who", timeout=30, wait_for_ready=True) for _ in range(8)}
            if found == names:
                return


# grpcio 1.85 finds no server at all when there are two addresses and one is unhealthy: only ours is held to it.
ONLY_OURS = pytest.mark.parametrize("open_stub", ["native"], indirect=True)


@ONLY_OURS
async def test_only_healthy_servers_get_calls(open_stub: Open) -> None:
    """As it changes: without a new connection."""
    async with checked("a", Status.SERVING) as (_, first), checked("b", Status.NOT_SERVING) as (health, second):
        stub = open_stub(first, second)
        await answered_by(stub, {"a"})
        await health.set(SERVICE, Status.SERVING)
        await answered_by(stub, {"a", "b"})
        await health.set(SERVICE, Status.NOT_SERVING)
        await answered_by(stub, {"a"})


async def test_without_a_healthy_server_calls_fail(open_stub: Open) -> None:
    """Or wait, as they say."""
    async with checked("a", Status.NOT_SERVING) as (health, address):
        stub = open_stub(address)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.unary("who", timeout=30)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        waiting = asyncio.ensure_future(stub.unary("who", timeout=30, wait_for_ready=True))
        await health.set(SERVICE, Status.SERVING)
        assert await waiting == "a"


@ONLY_OURS
async def test_a_service_that_isnt_known_isnt_healthy(open_stub: Open) -> None:
    """The server has health checks, and says SERVICE_UNKNOWN."""
    async with checked("a", Status.SERVING) as (_, first), checked("b", Status.SERVICE_UNKNOWN) as (_, second):
        await answered_by(open_stub(first, second), {"a"})


async def test_a_server_without_health_checks_is_healthy(open_stub: Open) -> None:
    """It answers UNIMPLEMENTED."""
    async with native_server(Named("a")) as (_, address):
        await answered_by(open_stub(address), {"a"})


async def test_pick_first_doesnt_look(open_stub: Open) -> None:
    """As the gRFC says."""
    config = CHECKED | {"loadBalancingConfig": [{"pick_first": {}}]}
    async with checked("a", Status.NOT_SERVING) as (_, address):
        await answered_by(open_stub(address, config=config), {"a"})


async def test_a_check_that_fails_is_made_again() -> None:
    """With a pause; the error says why there is no server meanwhile."""
    failures = 2

    class Failing(HealthServicer):
        async def Watch(self, request: Any, context: Any) -> Any:
            nonlocal failures
            if failures:
                failures -= 1
                await context.abort(grpc.StatusCode.INTERNAL, "no idea")
            await super().Watch(request, context)

    health = Failing()
    await health.set(SERVICE, Status.SERVING)
    add: Any = health_pb2_grpc.add_HealthServicer_to_server
    options = ChannelOptions(first_back_off_seconds=0.05, longest_back_off_seconds=0.2)
    async with native_server(Named("a"), add=lambda server: add(health, server)) as (_, address):
        async with NativeChannel(address, None, service_config=CHECKED, options=options) as channel:
            stub = EchoStub(channel)
            with pytest.raises(grpc.aio.AioRpcError, match="no idea"):
                await stub.unary("who", timeout=30)
            await answered_by(stub, {"a"})
            assert failures == 0
        await health.enter_graceful_shutdown()
