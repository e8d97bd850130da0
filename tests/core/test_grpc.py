"""core.grpc on both fronts: mutual TLS by SPIFFE ID, authorization, rotation, statuses, taken addresses."""

from __future__ import annotations

import os
import socket
import ssl
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
import structlog.testing
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
async def served(pki: Pki, grpc_front: mesh_grpc.Front):
    server_identity = StaticIdentity(pki.part("mixer"))
    echo = Echo()
    server = mesh_grpc.Server(
        "127.0.0.1:0",
        server_identity,
        front=grpc_front,
        authorize=mesh_grpc.Authorization([("/grpc.health.v1.Health/", [CLIENT])]),
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
    import tempfile

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


def test_plain_text_is_refused_off_loopback(grpc_front: mesh_grpc.Front) -> None:
    with pytest.raises(errors.ConfigError, match="can be reached from other machines"):
        mesh_grpc.Server("0.0.0.0:0", None, front=grpc_front)


class Failing(health_pb2_grpc.HealthServicer):
    """Raises what it is given, in each kind of handler that health has."""

    def __init__(self, failure: Exception) -> None:
        self._failure = failure

    async def Check(self, request: object, context: object) -> health_pb2.HealthCheckResponse:
        raise self._failure

    async def Watch(self, request: object, context: object) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        yield health_pb2.HealthCheckResponse()
        raise self._failure

    def List(self, request: object, context: object) -> health_pb2.HealthListResponse:
        raise self._failure


TOO_BIG = errors.ConfigError("too big", field="spec.weight", remedy="at most 100")
FAILURES = [
    (TOO_BIG, "INVALID_ARGUMENT", "spec.weight: too big (at most 100)"),
    (errors.Forbidden("not yours"), "PERMISSION_DENIED", "not yours"),
    (errors.Exhausted("records: 5 at most"), "RESOURCE_EXHAUSTED", "records: 5 at most"),
    (errors.MeshwrightError("odd"), "UNKNOWN", "odd"),
]


@pytest.mark.parametrize("method", ["Check", "Watch", "List"])
@pytest.mark.parametrize(("failure", "code", "text"), FAILURES)
async def test_an_error_of_ours_becomes_its_status(
    grpc_front: mesh_grpc.Front, method: str, failure: Exception, code: str, text: str
) -> None:
    status = await failed(grpc_front, method, failure)
    assert (status.code().name, status.details()) == (code, text)


@pytest.mark.parametrize("method", ["Check", "Watch", "List"])
async def test_what_isnt_ours_is_logged_and_not_told(grpc_front: mesh_grpc.Front, method: str) -> None:
    with structlog.testing.capture_logs() as logged:
        status = await failed(grpc_front, method, KeyError("a secret"))
    assert status.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(status.details())
    assert f"/grpc.health.v1.Health/{method} failed here" in str(status.details())
    [line] = [line for line in logged if line["event"] == "handler_failed"]
    assert "a secret" in str(line["exc_info"])


async def failed(front: mesh_grpc.Front, method: str, failure: Exception) -> grpc.aio.AioRpcError:
    """Return the error of a call whose handler raises `failure`."""
    server = mesh_grpc.Server("127.0.0.1:0", None, front=front)
    health_pb2_grpc.add_HealthServicer_to_server(Failing(failure), server)
    address = await server.start()
    try:
        async with mesh_grpc.Channel(address, None) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                if method == "Watch":
                    async for _ in stub.Watch(health_pb2.HealthCheckRequest()):
                        pass
                elif method == "List":
                    await stub.List(health_pb2.HealthListRequest())
                else:
                    await stub.Check(health_pb2.HealthCheckRequest())
        return caught.value
    finally:
        await server.stop(0)


async def test_a_handler_of_a_generic_kind_is_served(grpc_front: mesh_grpc.Front) -> None:
    class AnyEcho(grpc.GenericRpcHandler):
        def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
            async def answer(request: bytes, context: object) -> bytes:
                return handler_call_details.method.encode() + request

            return grpc.unary_unary_rpc_method_handler(answer)

    server = mesh_grpc.Server("127.0.0.1:0", None, front=grpc_front)
    server.add_generic_rpc_handlers((AnyEcho(),))
    address = await server.start()
    async with mesh_grpc.Channel(address, None) as channel:
        assert await channel.unary_unary("/any.Service/Method")(b" it is") == b"/any.Service/Method it is"
    await server.stop(0)


class Counting(grpc.aio.ServerInterceptor):
    """Notes the methods that it was asked about."""

    def __init__(self) -> None:
        self.methods: list[str] = []

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        self.methods.append(handler_call_details.method)
        return await continuation(handler_call_details)


async def test_interceptors_and_compression_are_grpc_aios(grpc_front: mesh_grpc.Front) -> None:
    counting = Counting()
    server = mesh_grpc.Server(
        "127.0.0.1:0", None, front=grpc_front, interceptors=[counting], compression=grpc.Compression.Gzip
    )
    health_pb2_grpc.add_HealthServicer_to_server(Echo(), server)
    address = await server.start()
    async with mesh_grpc.Channel(address, None) as channel:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    await server.stop(0)
    assert counting.methods == ["/grpc.health.v1.Health/Check"]


async def test_a_taken_port_names_part_address_and_holder(grpc_front: mesh_grpc.Front) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = mesh_grpc.Server(address, None, front=grpc_front, part="mixer")
        with pytest.raises(errors.Unavailable) as refused:
            await server.start()
    assert f"mixer can't listen on {address}: {address} is held by process {os.getpid()}" in str(refused.value)
    assert "--listen" in str(refused.value)


async def test_a_served_socket_names_its_holder_and_a_stale_one_is_replaced(
    grpc_front: mesh_grpc.Front, tmp_path: Path
) -> None:
    path = tmp_path / "served.sock"
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(path))
        taken.listen()
        server = mesh_grpc.Server(f"unix:{path}", None, front=grpc_front, part="citadel")
        with pytest.raises(errors.Unavailable, match=f"{path} is held by process {os.getpid()}"):
            await server.start()
    server = mesh_grpc.Server(f"unix:{path}", None, front=grpc_front)
    assert await server.start() == f"unix:{path}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await server.stop(0)
    assert not path.exists()


def test_what_only_the_native_front_can_do_is_an_error_on_the_other() -> None:
    users = mesh_grpc.Authorization([("/", ["unix:uid=0"])])
    for options in ({"native": [object()]}, {"requires": ["file descriptors"]}, {"authorize": users}):
        with pytest.raises(errors.ConfigError, match=r"grpc_front: .*--grpc-front native"):
            mesh_grpc.Server("127.0.0.1:0", None, front="aio", **options)
