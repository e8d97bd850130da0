"""One part's health, asked of every address of its Service with its own identity expected at each."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from meshwright.core import errors
from meshwright.core.grpc import Channel
from meshwright.core.identity import IdentitySource, part_id

_CALL_SECONDS = 10.0

Check = Coroutine[Any, Any, None]


async def ask(part: str, host: str, port: int, identity: IdentitySource, trust_domain: str) -> None:
    """Return when every address of `host` says SERVING; raise Unavailable naming the one that doesn't."""
    for address in await _addresses(host, port):
        async with Channel(address, identity, peer=part_id(trust_domain, part)) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                raise errors.Unavailable(f"{part} at {address}: {error.details()}") from error
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise errors.Unavailable(f"{part} at {address} isn't serving (its pod's log says why)")


async def _addresses(host: str, port: int) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise errors.Unavailable(f"{host} has no address: {error.strerror} (no pod of it is ready)") from error
    hosts = sorted({str(address[4][0]) for address in found})
    return [f"[{each}]:{port}" if ":" in each else f"{each}:{port}" for each in hosts]
