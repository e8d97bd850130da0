"""`serve`: an echo with protobuf over gRPC, each server on one core.

Our server against grpc.aio, grpcio's threads, grpc-go (where Go is) and bare tonic: the same handlers, the same client,
the same cores, in turn. The first result is the one that is held to its goal: async handlers with mutual TLS, ours with
limits, metrics and tracing as every service has them, grpc.aio with none of that.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from google.protobuf.wrappers_pb2 import StringValue
from tests.pki import Pki

from bench import measure
from bench.echo import SERVICE
from bench.result import Result, machine, median, require_quiet
from meshwright.dataplane.grpc import busy_poll

FLOOR_QUIET_US = 6.4
MILLISECONDS = 1000
CONNECTIONS, STREAMS = 16, 16
TEXT = "a line of text as long as a name, an address and a few flags are"
MESSAGES = 1000  # of one server stream
DOWNLOADS = 4, 4  # connections and streams of server streaming
TRACED = 100  # every so many calls belong to a trace that is recorded
DNS = "server.bench.svc"

Kind = Literal["unary", "alone", "stream"]


@dataclass
class Side:
    """One server under one kind of load, and what each round found."""

    name: str
    kind: Kind
    process: Any
    address: str
    tls: Path | None
    traced: int = 0
    cpu_us: list[float] = field(default_factory=list)
    p50_us: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)

    @property
    def cost(self) -> float:
        """CPU time of the server for a call or a streamed message, in microseconds."""
        return median(self.cpu_us)

    def load(self, programs: Path, messages: Path, milliseconds: int) -> None:
        """Load it once, and note what it cost."""
        connections, streams = {"unary": (CONNECTIONS, STREAMS), "alone": (1, 1), "stream": DOWNLOADS}[self.kind]
        arguments = ["--target", self.address, "--domain", DNS, "--message", str(messages)]
        arguments += ["--path", f"/{SERVICE}/{'Stream' if self.kind == 'stream' else 'Unary'}"]
        arguments += ["--connections", str(connections), "--streams", str(streams)]
        arguments += ["--milliseconds", str(milliseconds), "--traced", str(self.traced)]
        if self.tls is not None:
            arguments += ["--tls", str(self.tls)]
        before = measure.cpu_us(self.process.pid)
        found = measure.load(programs, arguments)
        used = measure.cpu_us(self.process.pid) - before
        self.cpu_us.append(used / int(found["messages"]))
        self.p50_us.append(float(found["p50_us"]))
        self.rate.append(int(found["messages"]) / float(found["seconds"]))

    def forget(self) -> None:
        """Drop what the first, warming round has found."""
        for series in (self.cpu_us, self.p50_us, self.rate):
            series.clear()


def run(rounds: int) -> Result:
    """Measure all sides in turn, round after round."""
    programs, go = measure.floors(), measure.go_floors()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pki = Pki()
        server = pki.write(pki.identity("spiffe://mesh.local/ns/bench/sa/server", dns=[DNS]), folder / "server")
        client = pki.write(pki.workload("bench"), folder / "client")
        message = folder / "message"
        message.write_bytes(StringValue(value=TEXT).SerializeToString())
        sides: dict[str, Side] = {}

        def started(*command: str | Path, **options: Any) -> tuple[Any, str]:
            process = stack.enter_context(measure.process(*command, core=measure.SERVER_CORE, **options))
            return process, measure.first_line(process)

        def add(name: str, kind: Kind, one: tuple[Any, str], *, tls: bool = False, traced: int = 0) -> None:
            sides[name] = Side(name, kind, *one, tls=client if tls else None, traced=traced)

        def echo(*arguments: str | Path) -> tuple[Any, str]:
            program = [sys.executable, "-m", "bench.echo"]
            return started(*program, *arguments, "--messages", str(MESSAGES), quiet="--access-log" in arguments)

        floor = started(programs / "echo_floor", "--listen", "127.0.0.1:0", "--messages", str(MESSAGES))
        service, aio = echo("service", "async", "--tls", server), echo("aio", "async", "--tls", server)
        add("tonic", "unary", floor)
        add("ours, async, TLS", "unary", service, tls=True, traced=TRACED)
        add("grpc.aio, TLS", "unary", aio, tls=True, traced=TRACED)
        everything = echo("service", "async", "--tls", server, "--access-log", "all")
        add("ours, async, TLS, every call traced and logged", "unary", everything, tls=True, traced=1)
        add("ours, async, TLS, no telemetry", "unary", echo("native", "async", "--tls", server), tls=True)
        add("ours, sync, nonblocking", "unary", echo("native", "nonblocking"))
        add("ours, sync, in threads", "unary", echo("native", "sync"))
        add("grpcio, sync", "unary", echo("grpcio", "sync"))
        if go is not None:
            peer = started(go / "echo_go", "-messages", str(MESSAGES), environment={"GOMAXPROCS": "1"})
            add("grpc-go", "unary", peer)
            add("grpc-go, stream", "stream", peer)
        add("ours, alone", "alone", service, tls=True)
        silent = echo("service", "async", "--tls", server, "--busy-poll", "0")
        add("ours, alone, no busy polling", "alone", silent, tls=True)
        add("grpc.aio, alone", "alone", aio, tls=True)
        add("ours, stream", "stream", service, tls=True)
        add("grpc.aio, stream", "stream", aio, tls=True)
        add("tonic, stream", "stream", floor)
        for side in sides.values():
            side.load(programs, message, MILLISECONDS // 4)
            side.forget()
        for _ in range(rounds):
            for side in sides.values():
                side.load(programs, message, MILLISECONDS)
    require_quiet("bare tonic", sides["tonic"].cost, FLOOR_QUIET_US)
    return result(sides, rounds)


def result(sides: dict[str, Side], rounds: int) -> Result:
    """Return the ratios: first the one with mutual TLS and telemetry, the others beside it."""
    main = compared("serve", "calls", sides["ours, async, TLS"], sides["grpc.aio, TLS"], goal=6.0)
    everything, nothing = (
        sides["ours, async, TLS, every call traced and logged"],
        sides["ours, async, TLS, no telemetry"],
    )
    threads, nonblocking, grpcio = (
        sides[name] for name in ("ours, sync, in threads", "ours, sync, nonblocking", "grpcio, sync")
    )
    beside = [
        compared("serve, no telemetry", "calls", nothing, sides["grpc.aio, TLS"]),
        compared("serve, every call traced and logged", "calls", everything, sides["grpc.aio, TLS"]),
        compared("serve, sync handlers in threads", "calls", threads, grpcio),
        compared("serve, sync handlers that never block", "calls", nonblocking, grpcio),
    ]
    if "grpc-go" in sides:
        name = "serve, sync handlers that never block, against grpc-go"
        beside.append(compared(name, "calls", nonblocking, sides["grpc-go"], goal=1.0))
    aio = sides["grpc.aio, alone"]
    beside.append(alone("serve, 1x1, p50", sides["ours, alone"], aio, goal=0.5))
    beside.append(alone("serve, 1x1, p50, no busy polling", sides["ours, alone, no busy polling"], aio))
    ours, aio = sides["ours, stream"], sides["grpc.aio, stream"]
    beside.append(
        Result(
            name="serve, server streaming",
            ours=median(ours.rate),
            against=median(aio.rate),
            unit="messages a second",
            better="higher",
            goal=5.0,
            cpu_us={side.name: side.cost for side in sides.values() if side.kind == "stream"},
        )
    )
    beside.append(compared("serve, server streaming", "messages", ours, aio, goal=5.0))
    conditions = {
        "handlers": "StringValue in and out, decoded and made anew",
        "tls": "mutual, TLS 1.3, where named, and for alone and stream of ours and grpc.aio",
        "connections x streams": f"{CONNECTIONS}x{STREAMS}, alone 1x1, stream {DOWNLOADS[0]}x{DOWNLOADS[1]}",
        "request bytes": len(StringValue(value=TEXT).SerializeToString()),
        "messages of a stream": MESSAGES,
        "traced": f"1 of {TRACED} calls, to ours and grpc.aio",
        "busy polling": f"ours by default: {busy_poll.seconds(None) * 1e6:g} µs (0 under a CPU quota)",
        "milliseconds": MILLISECONDS,
        "rounds": rounds,
        **machine(),
    }
    costs = {side.name: side.cost for side in sides.values() if side.kind == "unary"}
    return replace(main, cpu_us=costs, conditions=conditions, beside=beside)


def alone(name: str, ours: Side, peer: Side, goal: float | None = None) -> Result:
    """Return the median latencies of one call at a time."""
    return Result(
        name=name,
        ours=median(ours.p50_us),
        against=median(peer.p50_us),
        unit="µs",
        better="lower",
        goal=goal,
        cpu_us={side.name: side.cost for side in (ours, peer)},
    )


def compared(name: str, what: str, ours: Side, peer: Side, goal: float | None = None) -> Result:
    """Return how much more one server does in a second of its core than another."""
    return Result(
        name=name,
        ours=1e6 / ours.cost,
        against=1e6 / peer.cost,
        unit=f"{what} a CPU second",
        better="higher",
        goal=goal,
        cpu_us={side.name: side.cost for side in (ours, peer)},
    )
