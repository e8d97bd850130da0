"""The kubelet's probes of an application, asked again from inside its pod.

One decision to know: the kubelet has no identity in the mesh, so its probes can't pass a proxy that takes mutual TLS
only. The injector points them here, and here they are put to the application from the address that redirection lets
through: only the paths and ports that the pod itself names, and nothing else of it is open.
"""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Awaitable, Callable

from meshwright.platform.sidecar import http

Probe = Callable[[http.Request], Awaitable[http.Answer]]

_DROPPED = frozenset({"connection", "content-length", "transfer-encoding", "host"})
_HOST = "x-meshwright-probe-host"
"""Carries the Host header that the pod's author gave to a probe; the kubelet's own names the pod."""


def parse(text: str, address: str) -> tuple[str, Probe]:
    """Read NAME=URL; the application is at the pod's `address`."""
    name, _, url = text.partition("=")
    parts = urllib.parse.urlsplit(url)
    if not name or parts.port is None:
        raise OSError(f"--probe {text!r}: write NAME=http://:PORT/PATH, https://, tcp:// or grpc://")
    source = "::6" if ":" in address else "127.0.0.6"
    where = http.Tcp(parts.hostname or address, parts.port, source, tls=parts.scheme == "https")
    match parts.scheme:
        case "http" | "https":
            return name, _http(where, parts.path + (f"?{parts.query}" if parts.query else "") or "/")
        case "tcp":
            return name, _tcp(where)
        case "grpc":
            return name, _grpc(parts.port, parts.path.removeprefix("/"))
    raise OSError(f"--probe {text!r}: no probe is made by {parts.scheme!r}")


def _http(where: http.Tcp, target: str) -> Probe:
    async def ask(request: http.Request) -> http.Answer:
        headers = [(name, value) for name, value in request.headers if name.lower() not in _DROPPED]
        host = next((value for name, value in headers if name.lower() == _HOST), f"{where.host}:{where.port}")
        return await http.ask(where, target, headers=(("host", host), *headers))

    return ask


def _tcp(where: http.Tcp) -> Probe:
    async def ask(request: http.Request) -> http.Answer:
        _, writer = await asyncio.open_connection(where.host, where.port, local_addr=(where.source, 0))
        writer.close()
        return http.Answer(200, b"connected\n")

    return ask


def _grpc(port: int, service: str) -> Probe:
    async def ask(_: http.Request) -> http.Answer:
        import grpc.aio  # only pods with such a probe pay for it
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30)
            except grpc.aio.AioRpcError as error:
                return http.Answer(503, f"{error.code().name}: {error.details()}\n".encode())
        good = answer.status == health_pb2.HealthCheckResponse.SERVING
        return http.Answer(200 if good else 503, f"{answer.status}\n".encode())

    return ask
