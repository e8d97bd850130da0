"""core.health: states, readiness, and the gRPC health protocol."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from meshwright.api.istio.mixer.v1 import mixer_pb2
from meshwright.core import grpc as mesh_grpc
from meshwright.core import health
from meshwright.core.grpc import introspection

STATUS = health_pb2.HealthCheckResponse


def test_expected_parts_keep_a_process_unready_until_they_work() -> None:
    """A part that was announced counts as failed while it starts."""
    conditions = health.Health("store")
    assert not conditions.ready()
    conditions.set("store", True)
    assert conditions.ready()


def test_degraded_serves_on() -> None:
    """Degradation is told but takes no readiness away."""
    conditions = health.Health()
    conditions.degrade("config", "rules.yaml is broken")
    assert conditions.ready()
    assert conditions.state() is health.State.DEGRADED
    assert conditions.conditions()["config"].reason == "rules.yaml is broken"


def test_outage_degrades_what_worked_and_fails_what_never_did() -> None:
    """A backend that is lost later leaves the last state; one never seen leaves nothing to serve."""
    conditions = health.Health("bus", "store")
    conditions.set("store", True)
    for part in ("bus", "store"):
        conditions.outage(part, "away")
    assert conditions.conditions()["store"].state is health.State.DEGRADED
    assert conditions.conditions()["bus"].state is health.State.FAILED


def test_forgotten_part_no_longer_counts() -> None:
    conditions = health.Health("store")
    conditions.forget("store")
    assert conditions.ready()


async def test_changes_yield_now_and_after_each_change() -> None:
    conditions = health.Health("store")
    seen = conditions.changes()
    assert (await anext(seen))["store"].state is health.State.FAILED
    following = asyncio.ensure_future(anext(seen))
    await asyncio.sleep(0)
    conditions.set("store", True)
    async with asyncio.timeout(1):
        assert (await following)["store"].state is health.State.OK
        await conditions.wait_ready()


@pytest.fixture
async def served(grpc_front: mesh_grpc.Front):
    conditions = health.Health("store")
    server = mesh_grpc.Server("127.0.0.1:0", None, front=grpc_front)
    introspection.add_to_server(server, conditions, *mixer_pb2.DESCRIPTOR.services_by_name.values())
    address = await server.start()
    async with mesh_grpc.Channel(address, None) as channel:
        yield conditions, health_pb2_grpc.HealthStub(channel)
    await server.stop(0)


async def test_check_follows_readiness(served) -> None:
    conditions, stub = served
    request = health_pb2.HealthCheckRequest(service="istio.mixer.v1.Mixer")
    assert (await stub.Check(request)).status == STATUS.NOT_SERVING
    conditions.set("store", True)
    assert (await stub.Check(request)).status == STATUS.SERVING


async def test_unknown_service_is_told_as_the_protocol_says(served) -> None:
    _, stub = served
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.Check(health_pb2.HealthCheckRequest(service="nobody"))
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="nobody"))
    assert (await watch.read()).status == STATUS.SERVICE_UNKNOWN
    watch.cancel()


async def test_watch_sends_each_change_once(served) -> None:
    conditions, stub = served
    watch = stub.Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == STATUS.NOT_SERVING
    conditions.set("store", True)
    assert (await watch.read()).status == STATUS.SERVING
    conditions.degrade("store", "away")  # still serving: nothing to send
    conditions.set("store", False, "lost")
    assert (await watch.read()).status == STATUS.NOT_SERVING
    watch.cancel()
