"""Health and reflection on a server of ours: complete, and only for whom they are meant."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from meshwright.api.config.v1 import config_pb2_grpc
from meshwright.core import grpc as mesh_grpc
from meshwright.core import identity, service
from meshwright.core.health import Health
from meshwright.core.identity import StaticIdentity, X509Identity
from meshwright.core.settings import ServiceSettings
from pki import Pki

SERVER = identity.part_id("mesh.local", "manager")
CONFIG = "meshwright.config.v1.ConfigService"


@pytest.fixture
async def address(pki: Pki, grpc_front: mesh_grpc.Front, tmp_path: Path) -> AsyncIterator[str]:
    """A service whose own rule lets every identity of the mesh call everything of its own."""
    identity = Pki.write(pki.part("manager"), tmp_path)
    settings = ServiceSettings(identity=identity, grpc_front=grpc_front, log_level="error", _cli_parse_args=False)
    async with service.begun(settings, Health()) as own:
        server = own.server([("/", ["spiffe://mesh.local/*"])])
        config_pb2_grpc.add_ConfigServiceServicer_to_server(config_pb2_grpc.ConfigServiceServicer(), server)
        yield await own.serve(server)


def channel(address: str, svid: X509Identity) -> mesh_grpc.Channel:
    return mesh_grpc.Channel(address, StaticIdentity(svid), peer=SERVER)


async def ask(channel: mesh_grpc.Channel, **question: str) -> reflection_pb2.ServerReflectionResponse:
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(**question)]), timeout=10
    )
    return await call.read()


async def test_the_platform_may_read_services_and_their_messages(pki: Pki, address: str) -> None:
    async with channel(address, pki.part("admin")) as admin:
        listed = await ask(admin, list_services="")
        assert [service.name for service in listed.list_services_response.service] == [
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
            CONFIG,
        ]
        described = await ask(admin, file_containing_symbol=CONFIG)
        assert described.file_descriptor_response.file_descriptor_proto


async def test_a_workload_may_read_health_only(pki: Pki, address: str) -> None:
    async with channel(address, pki.workload("shop")) as workload:
        answer = await health_pb2_grpc.HealthStub(workload).Check(health_pb2.HealthCheckRequest(service=CONFIG))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ask(workload, list_services="")
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
