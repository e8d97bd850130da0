"""Leases on etcd: kept alive from a task of their own, lost when etcd says so or was away for longer than they live."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import structlog

from meshwright.api.etcd import rpc_pb2, rpc_pb2_grpc
from meshwright.core import errors
from meshwright.core.store.api import DEADLINE_SECONDS, Lease
from meshwright.core.store.etcd_endpoints import Endpoints

_END: Any = grpc.aio.EOF
_log = structlog.get_logger(__name__)
_LONGEST_PAUSE = 1.0  # between attempts while etcd is away


@contextlib.asynccontextmanager
async def hold(endpoints: Endpoints, ttl_seconds: float) -> AsyncIterator[Lease]:
    """Take a lease, keep it alive, and revoke it at the end. etcd rounds very short ones up (to about 2 s)."""
    request = rpc_pb2.LeaseGrantRequest(TTL=max(1, round(ttl_seconds)))
    granted = await endpoints.call(
        rpc_pb2_grpc.LeaseStub, "LeaseGrant", request, timeout=DEADLINE_SECONDS, subject="lease", repeatable=True
    )
    lease = Lease(granted.ID, float(granted.TTL))
    beating = asyncio.create_task(_keep(endpoints, lease), name=f"lease {lease.id:x}")
    try:
        yield lease
    finally:
        beating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beating
        if not lease.lost.is_set():
            await _revoke(endpoints, lease)


async def _keep(endpoints: Endpoints, lease: Lease) -> None:
    loop = asyncio.get_running_loop()
    alive_until = loop.time() + lease.ttl_seconds
    pause = lease.ttl_seconds / 3
    while True:
        await asyncio.sleep(pause)
        sent = loop.time()
        try:
            left = await _beat(endpoints, lease, alive_until - sent)
        except (grpc.aio.AioRpcError, TimeoutError):
            pause = min(_LONGEST_PAUSE, lease.ttl_seconds / 6)
        else:
            if left <= 0:
                break
            alive_until, pause = sent + left, left / 3
        if loop.time() >= alive_until:
            break
    _log.warning("lease_lost", lease=f"{lease.id:x}", ttl_seconds=lease.ttl_seconds)
    lease.lost.set()


async def _beat(endpoints: Endpoints, lease: Lease, room: float) -> float:
    """Return the seconds that etcd gives now; 0 when it doesn't know the lease any more."""
    member = endpoints.current
    call = endpoints.stub(rpc_pb2_grpc.LeaseStub, member).LeaseKeepAlive(metadata=(("hasleader", "true"),))
    try:
        async with asyncio.timeout(max(0.1, min(room, lease.ttl_seconds / 3, DEADLINE_SECONDS))):
            await call.write(rpc_pb2.LeaseKeepAliveRequest(ID=lease.id))
            response = await call.read()
    except (grpc.aio.AioRpcError, TimeoutError):
        endpoints.leave(member)
        raise
    finally:
        call.cancel()
    if response is _END:
        raise TimeoutError
    return float(response.TTL)


async def _revoke(endpoints: Endpoints, lease: Lease) -> None:
    request = rpc_pb2.LeaseRevokeRequest(ID=lease.id)
    with contextlib.suppress(errors.MeshwrightError):  # it ends by itself soon
        await endpoints.call(rpc_pb2_grpc.LeaseStub, "LeaseRevoke", request, timeout=1.0, subject="lease")
