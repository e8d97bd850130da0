"""Carries out a test: all clients at once, each with its URLs in turn; then says in SMP what was found."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from meshwright.api.smp import smp_pb2 as smp
from meshwright.core import errors, identity
from meshwright.dataplane import load as loads
from meshwright.platform.demo.workload_api import WorkloadIdentity
from meshwright.platform.perf import fortio, mesh, plan
from meshwright.platform.perf.smp import documents
from meshwright.platform.up.trust import Citadel

NAMESPACE, ACCOUNT = "performance", "load"
_LIFETIME = timedelta(hours=1)

Advance = Callable[[float, int, int], None]
"""Told of seconds more, and of good and failed requests more."""


@dataclass(frozen=True, slots=True)
class Run:
    """What was found, and each result's details."""

    measured: documents.Measured
    details: tuple[dict[str, Any], ...]


async def run(
    config: smp.PerformanceTestConfig,
    planned: Sequence[plan.Planned],
    running: mesh.RunningMesh | None,
    advance: Advance,
    stop: asyncio.Event,
) -> Run:
    """Carry out a test; raise Unavailable when a server can't be reached or `stop` is set meanwhile."""
    if any(one.internal for one in planned) and running is None:
        raise errors.ConfigError(
            "no mesh runs here whose member it could be", field="clients.internal", remedy="meshwright up, or false"
        )
    ended = threading.Event()
    stopping = asyncio.create_task(_tell(stop, ended), name="stop loads")
    try:
        async with contextlib.AsyncExitStack() as stack:
            member = None
            if running is not None and any(one.internal for one in planned):
                member = await stack.enter_async_context(membership(running))
            before = await running.look() if running else None
            clients: dict[int, list[plan.Planned]] = {}
            for one in planned:
                clients.setdefault(one.client, []).append(one)
            found = await asyncio.gather(
                *(asyncio.to_thread(_client, own, member, advance, ended) for own in clients.values())
            )
            if ended.is_set():
                raise errors.Unavailable("stopped before its end: nothing was written")
            after = await running.look() if running else None
            measured = [result for client in found for result in client]
            mesh_config = None
            environment = mesh.environment(planned[0].load.url)
            if running is not None and before is not None and after is not None:
                mesh_config = await running.describe(before, after)
                mesh_config.id = str(uuid.uuid4())
                environment = running.environment(before, after, planned[0].load.url)
    finally:
        stopping.cancel()
    environment.id = str(uuid.uuid4())
    config.id = config.id or str(uuid.uuid4())
    config.smp_version = config.smp_version or documents.VERSION
    results = tuple(_result(config, one, mesh_config, environment) for one in measured)
    details = tuple(fortio.details(one.load, one.found, one.started, config.name) for one in measured)
    return Run(documents.Measured(results, config, mesh_config, environment), details)


@contextlib.asynccontextmanager
async def membership(running: mesh.RunningMesh) -> AsyncIterator[identity.IdentitySource]:
    """Be a workload of the mesh for a while: this very process, registered with citadel."""
    spiffe_id = identity.workload_id(running.admin.current().trust_domain, NAMESPACE, ACCOUNT)
    citadel = Citadel(running.layout.socket("citadel-admin"))
    try:
        registration = await citadel.register(spiffe_id, os.getpid(), _LIFETIME)
        try:
            async with WorkloadIdentity(running.layout.socket("agent"), spiffe_id) as source:
                yield source
        finally:
            await citadel.unregister(registration)
    finally:
        await citadel.close()


@dataclass(frozen=True, slots=True)
class _Measured:
    load: loads.Load
    client: int
    started: datetime
    found: loads.Found


def _client(
    own: Sequence[plan.Planned], member: identity.IdentitySource | None, advance: Advance, ended: threading.Event
) -> list[_Measured]:
    """One client's URLs, one after the other, on a thread of its own."""
    measured: list[_Measured] = []
    for one in own:
        if ended.is_set():
            break
        load = one.load
        if one.internal and member is not None:
            load = replace(load, mesh=loads.Mesh(member, one.peer))
        started = datetime.now(UTC)
        try:
            found = loads.run(load, _Steps(advance, ended, load.warm_up + load.duration))
        except ValueError as error:
            raise errors.ConfigError(str(error), field=f"clients[{one.client}]") from error
        except ConnectionError as error:
            raise errors.Unavailable(f"{load.url}: {error}") from error
        measured.append(_Measured(load, one.client, started, found))
    return measured


class _Steps:
    """Turns a load's progress since its beginning into steps."""

    def __init__(self, advance: Advance, ended: threading.Event, most: float) -> None:
        self._advance, self._ended, self._most = advance, ended, most
        self._last = (0.0, 0, 0)

    def __call__(self, seconds: float, good: int, failed: int) -> bool:
        now = (min(seconds, self._most), good, failed)
        self._advance(now[0] - self._last[0], good - self._last[1], failed - self._last[2])
        self._last = now
        return self._ended.is_set()


async def _tell(stop: asyncio.Event, ended: threading.Event) -> None:
    await stop.wait()
    ended.set()


def _result(
    config: smp.PerformanceTestConfig,
    one: _Measured,
    mesh_config: smp.ServiceMeshConfig | None,
    environment: smp.EnvironmentConfig,
) -> smp.PerformanceTestResult:
    found, load = one.found, one.load
    result = smp.PerformanceTestResult(
        smp_version=documents.VERSION,
        id=str(uuid.uuid4()),
        actual_qps=found.rate,
        test_id=config.id,
        mesh_config_id=mesh_config.id if mesh_config else "",
        env_id=environment.id,
        latencies_ms=smp.PerformanceTestResult.Latency(
            min=found.min * 1000,
            average=found.mean * 1000,
            p50=found.percentiles[50.0] * 1000,
            p90=found.percentiles[90.0] * 1000,
            p99=found.percentiles[99.0] * 1000,
            max=found.max * 1000,
        ),
    )
    result.start_time.FromDatetime(one.started)
    result.end_time.FromDatetime(one.started + timedelta(seconds=load.warm_up + found.elapsed))
    labels = {
        "name": config.name,
        "url": load.url,
        "client": str(one.client),
        "load_generator": plan.GENERATOR,
        "loop": "open" if load.rate else "closed",
        "requested_qps": f"{load.rate:g}",
        "duration_s": f"{load.duration:g}",
        "connections": str(load.connections),
        "requests": str(found.count),
        "good": str(found.good),
        "unsent": str(found.unsent),
        "mtls": str(load.mesh is not None).lower(),
    }
    labels |= {f"latency_ms.p{share:g}": f"{value * 1000:.4g}" for share, value in found.percentiles.items()}
    labels["send_lag_ms.p99"] = f"{found.lag[99.0] * 1000:.4g}"
    labels |= {f"status.{status}": str(count) for status, count in found.statuses.items()}
    labels |= {f"failure.{reason[:100]}": str(count) for reason, count in found.failures.items()}
    result.labels.update(labels)
    return result
