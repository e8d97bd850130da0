"""core.grpc: every server has metrics and an access log without doing anything for it, and every channel metrics."""

from __future__ import annotations

import asyncio

import grpc
import prometheus_client
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from meshwright.core import errors, identity
from meshwright.core import grpc as mesh_grpc
from meshwright.core.identity import StaticIdentity
from pki import Pki

SERVER = identity.part_id("mesh.local", "mixer")
CLIENT = identity.part_id("mesh.local", "manager")
METHOD = "grpc.health.v1.Health/Check"


class Healthy(health_pb2_grpc.HealthServicer):
    """Knows itself only."""

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        if request.service:
            raise errors.NotFound(f"{request.service} isn't here")
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


def counted(side: str, status: str) -> float:
    """How many checks ended so, whoever served them."""
    name = f"rpc_{side}_call_duration_seconds_count"
    labels = {"rpc_method": METHOD, "rpc_response_status_code": status}
    return sum(
        sample.value
        for family in prometheus_client.REGISTRY.collect()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def test_calls_are_counted_and_trouble_is_logged(pki: Pki) -> None:
    server = mesh_grpc.Server(
        "127.0.0.1:0",
        StaticIdentity(pki.part("mixer")),
        authorize=mesh_grpc.Authorization([("/grpc.health.v1.Health/Check", [CLIENT])]),
    )
    health_pb2_grpc.add_HealthServicer_to_server(Healthy(), server)
    address = await server.start()
    before = {(side, status): counted(side, status) for side in ("server", "client") for status in ("OK", "NOT_FOUND")}
    with structlog.testing.capture_logs() as lines:
        async with mesh_grpc.Channel(address, StaticIdentity(pki.part("manager")), peer=SERVER) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            await stub.Check(health_pb2.HealthCheckRequest())
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Check(health_pb2.HealthCheckRequest(service="other"))
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Watch(health_pb2.HealthCheckRequest()).read()
        await server.stop(0)
    async with asyncio.timeout(10):
        while not all(counted(*key) == count + 1 for key, count in before.items()):
            await asyncio.sleep(0.01)
    calls = [line for line in lines if line["event"] == "call"]
    assert [(line["method"], line["status"], line["peer"]) for line in calls] == [
        ("grpc.health.v1.Health/Watch", "PERMISSION_DENIED", CLIENT)
    ]


async def test_rules_of_the_access_log_are_the_servers(pki: Pki) -> None:
    rules = "off,/grpc.health.v1.Health/Check=all"
    server = mesh_grpc.Server("127.0.0.1:0", StaticIdentity(pki.part("mixer")), access_log=rules)
    health_pb2_grpc.add_HealthServicer_to_server(Healthy(), server)
    address = await server.start()
    with structlog.testing.capture_logs() as lines:
        async with mesh_grpc.Channel(address, StaticIdentity(pki.part("manager")), peer=SERVER) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            await stub.Check(health_pb2.HealthCheckRequest())
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary("/made.Up/Method")(b"")
        await server.stop(0)
    assert [(line["method"], line["status"]) for line in lines if line["event"] == "call"] == [(METHOD, "OK")]
