"""`meshwright perf suite`: what each step of the mesh costs, in latency and in CPU, on this machine.

One decision to know: rounds are interleaved (each goes through all stages) and medians are shown, so that a busy moment
of the machine hits all stages alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import statistics
import sys
import urllib.parse
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from meshwright.core import errors, identity, process
from meshwright.dataplane import load as loads
from meshwright.manager.xds.bootstrap import ARGUMENTS
from meshwright.platform.demo import command as demo
from meshwright.platform.perf import mesh, processes, stages
from meshwright.platform.perf.run import membership
from meshwright.platform.perf.smp import documents
from meshwright.platform.up import probes, servers
from meshwright.platform.up.app import Start
from meshwright.platform.up.part import Part
from meshwright.platform.up.settings import PORTS, UpSettings, default_data
from meshwright.platform.up.supervisor import Supervisor
from meshwright.platform.up.trust import Citadel

_READY_SECONDS = 40.0
_LIFETIME = timedelta(hours=1)
_WARM_UP = 1.0
_ORIGIN = "perf-origin"


@dataclass(frozen=True, slots=True)
class SuiteSettings:
    """What every stage is measured with."""

    rate: int
    duration: float
    connections: int
    rounds: int


@dataclass(slots=True)
class Cost:
    """What the rounds found of one stage: latencies in ms, CPU in µs a request."""

    stage: stages.Stage
    latencies: dict[float, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)
    good: int = 0
    bad: int = 0
    unsent: int = 0

    def latency(self, share: float) -> float:
        """The median over the rounds."""
        return statistics.median(self.latencies[share])

    def cpu_us(self, who: str) -> float:
        """The median over the rounds."""
        return statistics.median(self.cpu[who])

    @property
    def mesh_us(self) -> float:
        """CPU that isn't the server's."""
        return self.cpu_us("sidecar") + self.cpu_us("mixer")


def command(settings: SuiteSettings, data: Path | None, form: str) -> int:
    """Run the suite and print what was found; progress goes to stderr."""
    console = Console(stderr=True, soft_wrap=True)
    found: list[Cost] = []

    async def main(stop: asyncio.Event) -> None:
        async with _meshed(data or default_data(), console) as running:
            work = asyncio.create_task(measure(running, settings, console), name="suite")
            stopping = asyncio.create_task(stop.wait(), name="stop")
            await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if not work.done():
                work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                found.extend(await work)

    status = process.run("meshwright perf suite", main)
    if status or not found:
        return status or 1
    if form == "table":
        _show(found, settings)
    else:
        sys.stdout.write(documents.text(plain(found, settings), form))
    return process.EX_OK if not any(cost.bad for cost in found) else 1


async def measure(running: mesh.RunningMesh, settings: SuiteSettings, console: Console) -> list[Cost]:
    """Measure all stages on a running mesh."""
    layout, trust_domain = running.layout, running.admin.current().trust_domain
    folder = layout.data / "performance" / "suite"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    citadel = Citadel(layout.socket("citadel-admin"))
    registrations: list[str] = []
    spiffe_id = identity.workload_id(trust_domain, stages.NAMESPACE, stages.NAME)

    async def register(pid: int) -> None:
        registrations.append(await citadel.register(spiffe_id, pid, _LIFETIME))

    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(citadel.close)
        stack.push_async_callback(_unregister, citadel, registrations)
        member = await stack.enter_async_context(membership(running))
        supervisor = await stack.enter_async_context(Supervisor(folder / "logs", folder))
        places = {stage: _place(stage, running, trust_domain) for stage in stages.STAGES}
        supervisor.add(_origin(layout.socket(_ORIGIN)))
        for stage, place in places.items():
            if stage.sidecar:
                config = stages.write(stage, place, folder)
                supervisor.add(
                    Part(
                        name=stage.name,
                        argv=(
                            servers.envoy(),
                            "-c",
                            str(config),
                            "--concurrency",
                            "1",
                            "--log-level",
                            "warning",
                            *ARGUMENTS,
                        ),
                        probe=probes.http(place.admin_socket, "/ready"),
                        after_start=register,
                    )
                )
        await supervisor.until_healthy(None, _READY_SECONDS)
        costs = [Cost(stage) for stage in stages.STAGES]
        for number in range(settings.rounds):
            for cost in costs:
                console.print(f"round {number + 1} of {settings.rounds}: {cost.stage.name}", highlight=False)
                load = _load(cost.stage, places[cost.stage], settings, loads.Mesh(member, spiffe_id))
                await _one(cost, load, supervisor, running)
        return costs


async def _one(cost: Cost, load: loads.Load, supervisor: Supervisor, running: mesh.RunningMesh) -> None:
    await asyncio.to_thread(loads.run, replace(load, duration=_WARM_UP))
    who: dict[str, Sequence[int | None]] = {
        "server": [supervisor.status(_ORIGIN).pid],
        "sidecar": [supervisor.status(cost.stage.name).pid] if cost.stage.sidecar else [],
        "mixer": running.pids(running.mixers),
    }
    before = {name: list(map(processes.cost, pids)) for name, pids in who.items()}
    found = await asyncio.to_thread(loads.run, load)
    for name, pids in who.items():
        spent = processes.spent(before[name], map(processes.cost, pids))
        cost.cpu.setdefault(name, []).append(spent / max(found.count, 1) * 1e6)
    for share, value in found.percentiles.items():
        cost.latencies.setdefault(share, []).append(value * 1000)
    cost.good += found.good
    cost.bad += found.count - found.good
    cost.unsent += found.unsent


def _load(stage: stages.Stage, place: stages.Place, settings: SuiteSettings, member: loads.Mesh) -> loads.Load:
    socket_ = place.socket if stage.sidecar else place.origin
    url = f"{loads.UNIX_SCHEME}://{urllib.parse.quote(str(socket_), safe='')}/"
    return loads.Load(
        url=f"https://127.0.0.1:{place.port}/" if stage.mtls else url,
        rate=float(settings.rate),
        connections=settings.connections,
        duration=settings.duration,
        headers=(("host", stages.NAME),),
        mesh=member if stage.mtls else None,
        threads=1,
    )


def _origin(socket_: Path) -> Part:
    argv = (sys.executable, "-P", "-m", "meshwright.platform.perf.origin", "--listen", str(socket_))
    return Part(name=_ORIGIN, argv=argv, probe=probes.http(socket_, "/"))


def _place(stage: stages.Stage, running: mesh.RunningMesh, trust_domain: str) -> stages.Place:
    layout = running.layout
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    return stages.Place(
        origin=layout.socket(_ORIGIN),
        socket=layout.socket(f"perf-{stage.name}"),
        port=port,
        admin_socket=layout.socket(f"perf-{stage.name}-admin"),
        agent_socket=layout.socket("agent"),
        manager=running.address("manager"),
        mixers=tuple(running.address(name) for name in running.mixers),
        collector=running.address("collector"),
        trust_domain=trust_domain,
    )


async def _unregister(citadel: Citadel, registrations: Sequence[str]) -> None:
    for registration in registrations:
        await citadel.unregister(registration)


@contextlib.asynccontextmanager
async def _meshed(data: Path, console: Console) -> AsyncIterator[mesh.RunningMesh]:
    """Yield the mesh that runs on `data`, else one of our own in a temporary directory."""
    if found := mesh.RunningMesh.find(data):
        console.print(f"mesh: {found.layout.data}", markup=False, highlight=False)
        yield found
        return
    own = demo.temporary()
    console.print("mesh: none runs here, so one is started for the suite", highlight=False)
    try:
        start = Start(UpSettings.model_validate({"data": own, "base_port": _free_base(), "log_level": "warning"}))
        async with start.run():
            running = mesh.RunningMesh.find(own)
            if running is None:
                raise errors.Unavailable(f"{own}: the mesh started, and has no state file")
            yield running
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _free_base() -> int:
    for base in range(20_000, 32_000, PORTS):  # below the range of outgoing connections
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(base, base + PORTS):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return base
    raise errors.Unavailable(f"no {PORTS} free ports in a row on 127.0.0.1")


def plain(costs: Sequence[Cost], settings: SuiteSettings) -> dict[str, Any]:
    """Return what was found as plain values."""
    return {
        "requests_per_second": settings.rate,
        "connections": settings.connections,
        "seconds": settings.duration,
        "rounds": settings.rounds,
        "stages": [
            {
                "name": cost.stage.name,
                "what": cost.stage.what,
                "latency_ms": {f"p{share:g}": round(cost.latency(share), 4) for share in (50.0, 90.0, 99.0)},
                "cpu_us": {who: round(cost.cpu_us(who), 1) for who in cost.cpu},
                "good": cost.good,
                "bad": cost.bad,
                "unsent": cost.unsent,
            }
            for cost in costs
        ],
    }


def _show(costs: Sequence[Cost], settings: SuiteSettings) -> None:
    console = Console(soft_wrap=not sys.stdout.isatty())
    grid = Table(box=None, pad_edge=False, header_style="bold")
    columns = ("stage", "p50 ms", "p90 ms", "p99 ms", "more p50", "sidecar µs", "mixer µs", "more µs")
    for column in columns:
        grid.add_column(column, justify="left" if column == "stage" else "right")
    for before, cost in zip([None, *costs], costs, strict=False):
        grid.add_row(
            cost.stage.name,
            *(f"{cost.latency(share):.3f}" for share in (50.0, 90.0, 99.0)),
            f"{cost.latency(50.0) - before.latency(50.0):+.3f}" if before else "",
            f"{cost.cpu_us('sidecar'):.0f}",
            f"{cost.cpu_us('mixer'):.0f}",
            f"{cost.mesh_us - before.mesh_us:+.0f}" if before else "",
        )
    console.print(grid)
    console.print(
        f"{settings.rate} requests/s over {settings.connections} connections, {settings.duration:g} s a stage, "
        f"medians of {settings.rounds} rounds; µs are of CPU for a request",
        highlight=False,
    )
    for cost in costs:
        console.print(f"{cost.stage.name}: {cost.stage.what}", highlight=False)
        if cost.bad or cost.unsent:
            console.print(f"{cost.stage.name}: {cost.bad} failed, {cost.unsent} not sent in time", highlight=False)
