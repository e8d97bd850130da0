"""`push-resources` and `push-cold`: 1,000 services, 10,000 endpoints, 200 ADS clients, without a mesh to compile.

Our xDS server with its cache against the same gRPC server with a handler that writes the same bytes to the same streams
and knows no protocol (`push_server`). Same TLS, same clients in Rust, same cores, in turn.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.pki import Pki

from bench import measure, push, push_server
from bench.result import Result, machine, median
from meshwright.manager.xds import types

MILLISECOND = 1e6  # nanoseconds


@dataclass
class Side:
    """One server, and what each round found: microseconds of CPU a client, milliseconds, bytes a client."""

    server: subprocess.Popen[str]
    clients: subprocess.Popen[str] | None = None
    cpu_us: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    size: float = 0

    def push(self) -> None:
        """Change one resource as often as a round has changes."""
        assert self.clients is not None
        assert self.server.stdin is not None
        before, times = measure.cpu_us(self.server.pid), []
        for _ in range(push.PUSHES):
            began = time.time_ns()
            self.server.stdin.write("\n")
            self.server.stdin.flush()
            _, p99, _, size = map(int, measure.first_line(self.clients).split())
            times.append((p99 - began) / MILLISECOND)
            self.size = size / push.CLIENTS
        self.cpu_us.append((measure.cpu_us(self.server.pid) - before) / (push.PUSHES * push.CLIENTS))
        self.p99_ms.append(median(times))


def run(rounds: int) -> Result:
    """Measure both in turn."""
    programs = measure.floors()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pki = Pki()
        tls = Pki.write(pki.part("manager"), folder / "manager")
        client = Pki.write(pki.workload("bench"), folder / "client")
        sides: dict[str, Side] = {}
        colds: dict[str, list[float]] = {"cache": [], "bare": []}
        memory: dict[str, list[float]] = {"cache": [], "bare": []}
        names = ",".join(push_server.name(number) for number in range(push_server.SERVICES))
        size = 0.0
        for _ in range(rounds):
            for kind in ("cache", "bare"):
                with ExitStack() as once:
                    server, address = once.enter_context(started(kind, tls))
                    used, held = measure.cpu_us(server.pid), resident(server.pid)
                    found = once.enter_context(push.clients(programs, address, client, types.CLUSTER, names))
                    colds[kind].append((measure.cpu_us(server.pid) - used) / push.CLIENTS)
                    memory[kind].append((resident(server.pid) - held) / push.CLIENTS)
                    size = found.size / push.CLIENTS
        for kind in ("cache", "bare"):
            server, address = stack.enter_context(started(kind, tls))
            side = sides[kind] = Side(server)
            found = stack.enter_context(push.clients(programs, address, client, types.CLUSTER, names))
            side.clients = found.process
            side.push()
            side.cpu_us.clear()
            side.p99_ms.clear()
        for _ in range(rounds):
            for side in sides.values():
                side.push()
    ours, bare = sides["cache"], sides["bare"]
    resource = len(push_server.endpoints(0).SerializeToString())
    shape = {"clients": push.CLIENTS, "services": push_server.SERVICES, "endpoints a service": push_server.ENDPOINTS}
    conditions = {
        **shape,
        "changes a round": push.PUSHES,
        "bytes a client": ours.size,
        "bytes of the resource": resource,
        "p99 ms": round(median(ours.p99_ms), 2),
        "p99 ms, bare": round(median(bare.p99_ms), 2),
        "rounds": rounds,
        **machine(),
    }
    cold = Result(
        name="push-cold",
        ours=median(colds["cache"]),
        against=median(colds["bare"]),
        unit="µs a client, with its TLS handshake",
        better="lower",
        goal=3.0,
        cpu_us={"ours": median(colds["cache"]), "bare server": median(colds["bare"])},
        conditions={
            **shape,
            "bytes a client": size,
            "resident KiB a client": round(median(memory["cache"]), 1),
            "resident KiB a client, bare": round(median(memory["bare"]), 1),
        },
    )
    return Result(
        name="push-resources",
        ours=median(ours.cpu_us),
        against=median(bare.cpu_us),
        unit="µs a client",
        better="lower",
        goal=2.0,
        cpu_us={"ours": median(ours.cpu_us), "bare server": median(bare.cpu_us)},
        conditions=conditions,
        beside=[
            cold,
            Result(
                name="push-resources, p99",
                ours=median(ours.p99_ms),
                against=median(bare.p99_ms),
                unit="ms",
                better="lower",
                goal=2.0,
                cpu_us={},
            ),
        ],
    )


@contextmanager
def started(kind: str, tls: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a server on the server's core; yield it with its address."""
    program = [sys.executable, "-m", "bench.push_server", kind, str(tls)]
    with measure.process(*program, core=measure.SERVER_CORE, stdin=True) as process:
        yield process, measure.first_line(process)


def resident(pid: int) -> float:
    """Return the memory that a process holds, in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmRSS:")))
