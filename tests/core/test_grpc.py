"""core.grpc: mutual TLS by SPIFFE ID, authorization, rotation."""

from __future__ import annotations

import ssl

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from meshwright.core import errors, identity
from meshwright.core import grpc as mesh_grpc
from meshwright.core.identity import StaticIdentity
from pki import Pki

SERVER = identity.part_id("mesh.local", "mixer")
CLIENT = identity.part_id("mesh.local", "manager")


class Echo(health_pb2_grpc.HealthServicer):
    """Answers with a code that shows who called."""

    callers: list[str | None]

    def __init__(self) -> None:
        self.callers = []

    async def Check(self, request: object, context: grpc.aio.ServicerContext) -> health_pb2.HealthCheckResponse:
        self.callers.append(mesh_grpc.peer_id(context))
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


@pytest.fixture
async def served(pki: Pki):
    server_identity = StaticIdentity(pki.part("mixer"))
    echo = Echo()
    server = mesh_grpc.Server(
        "127.0.0.1:0", server_identity, authorize=mesh_grpc.Authorization([("/grpc.health.v1.Health/", [CLIENT])])
    )
    health_pb2_grpc.add_HealthServicer_to_server(echo, server)
    address = await server.start()
    yield address, echo, server_identity
    await server.stop(0)


async def test_caller_is_known_by_its_spiffe_id(pki: Pki, served) -> None:
    address, echo, _ = served
    async with mesh_grpc.Channel(address, StaticIdentity(pki.part("manager")), peer=SERVER) as channel:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert echo.callers == [CLIENT]


async def test_another_identity_is_denied_with_its_name(pki: Pki, served) -> None:
    address, echo, _ = served
    async with mesh_grpc.Channel(address, StaticIdentity(pki.part("nsmgr")), peer=SERVER) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match=r"sa/nsmgr may not call /grpc\.health") as refused:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert echo.callers == []


async def test_foreign_authority_is_refused(served) -> None:
    address, echo, _ = served
    foreign = Pki()
    async with mesh_grpc.Channel(address, StaticIdentity(foreign.part("manager")), peer=SERVER) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    assert echo.callers == []


async def test_server_with_another_name_is_refused(pki: Pki, served) -> None:
    address, echo, _ = served
    wrong = identity.part_id("mesh.local", "citadel")
    async with mesh_grpc.Channel(address, StaticIdentity(pki.part("manager")), peer=wrong) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    assert echo.callers == []


async def test_both_sides_rotate_without_a_failed_call(pki: Pki, served) -> None:
    address, echo, server_identity = served
    client = StaticIdentity(pki.part("manager"))
    async with mesh_grpc.Channel(address, client, peer=SERVER) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        await stub.Check(health_pb2.HealthCheckRequest())
        before = server_certificate(address, pki, client)
        server_identity.replace(pki.part("mixer"))
        client.replace(pki.part("manager"))
        await stub.Check(health_pb2.HealthCheckRequest())
        assert server_certificate(address, pki, client) != before
    assert echo.callers == [CLIENT, CLIENT]


def server_certificate(address: str, pki: Pki, client: StaticIdentity) -> bytes:
    """Return the certificate that a new handshake gets, DER."""
    import socket
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        Pki.write(client.current(), Path(folder))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=pki.bundle_pem.decode())
        context.load_cert_chain(Path(folder) / "cert.pem", Path(folder) / "key.pem")
        context.set_alpn_protocols(["h2"])
        host, _, port = address.rpartition(":")
        with (
            socket.create_connection((host, int(port)), timeout=5) as raw,
            context.wrap_socket(raw) as wrapped,
        ):
            der = wrapped.getpeercert(binary_form=True)
    assert der is not None
    return der


def test_plain_text_is_refused_off_loopback() -> None:
    with pytest.raises(errors.ConfigError, match="can be reached from other machines"):
        mesh_grpc.Server("0.0.0.0:0", None)
