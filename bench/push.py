"""`push`: one endpoint's change to 200 ADS clients.

meshwright-manager, against a bare tonic server that writes the bytes of the same response to every stream. Same TLS,
same clients, same cores, in turn.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.pki import Pki

from bench import measure
from bench.result import Result, interleave, machine, median
from bench.service import service
from meshwright.api.envoy.config.endpoint.v3 import endpoint_pb2
from meshwright.api.envoy.service.discovery.v3 import discovery_pb2
from meshwright.core import identity
from meshwright.core.config import from_document
from meshwright.manager.client import Client

CLIENTS = 200
PUSHES = 20
PREFIX = "type.googleapis.com/envoy.config."
EDS = f"{PREFIX}endpoint.v3.ClusterLoadAssignment"
TYPES = f"{PREFIX}cluster.v3.Cluster,{PREFIX}listener.v3.Listener"
CLUSTER = "outbound|80||catalog.default.svc.cluster.local"


def run(rounds: int) -> Result:
    """Measure both in turn; a figure is the server's CPU time for one client's update."""
    programs = measure.floors()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pki = Pki()
        manager = Pki.write(pki.part("manager"), folder / "manager")
        client = Pki.write(pki.workload("bench"), folder / "client")
        response = folder / "response"
        response.write_bytes(bytes_of_one_push())
        ours, ours_address = stack.enter_context(service("manager", identity=manager, folder=folder))
        runner = stack.enter_context(asyncio.Runner())
        admin = identity.StaticIdentity(pki.part("admin"))
        change = Endpoint(runner, Client(ours_address, admin, trust_domain="mesh.local"))
        change.apply(*documents())
        change()
        floor, floor_address = stack.enter_context(floor_process(programs, manager, response))
        ours_clients = stack.enter_context(clients(programs, ours_address, client, TYPES, CLUSTER))
        floor_clients = stack.enter_context(clients(programs, floor_address, client, EDS, ""))

        def write() -> None:
            assert floor.stdin
            floor.stdin.write("\n")
            floor.stdin.flush()

        sides = [meter(ours, ours_clients.process, change), meter(floor, floor_clients.process, write)]
        for side in sides:
            side()
        ours_us, floor_us = map(median, interleave(rounds, sides))
    return Result(
        name="push",
        ours=ours_us,
        against=floor_us,
        unit="µs a client",
        better="lower",
        cpu_us={"ours": ours_us, "bare server": floor_us},
        conditions={
            "clients": CLIENTS,
            "changes a round": PUSHES,
            "response bytes": len(bytes_of_one_push()),
            "tls": "mutual, TLS 1.3",
            "change": "meshwright.config.v1 Apply of one object; checking and compiling it are part of our figure",
            "rounds": rounds,
            **machine(),
        },
    )


class Endpoint:
    """The endpoint that changes: each call applies it with another port, as `meshwright apply` does."""

    def __init__(self, runner: asyncio.Runner, manager: Client) -> None:
        self._runner, self._manager, self._port = runner, manager, 20_000

    def __call__(self) -> None:
        """Change the port."""
        self._port += 1
        self.apply(workload("catalog", "catalog", self._port, "catalog"))

    def apply(self, *documents: dict[str, Any]) -> None:
        """Apply documents in one revision."""
        objects = [from_document(document, "bench") for document in documents]
        self._runner.run(self._manager.apply(objects))


def meter(
    server: subprocess.Popen[str], watchers: subprocess.Popen[str], change: Callable[[], None]
) -> Callable[[], float]:
    """Return a function that makes changes one after the other, each seen by all clients, and gives CPU µs a client."""

    def push() -> float:
        before = measure.cpu_us(server.pid)
        for _ in range(PUSHES):
            change()
            measure.first_line(watchers)
        return (measure.cpu_us(server.pid) - before) / (PUSHES * CLIENTS)

    return push


@dataclass
class Clients:
    """The clients' process, and how many bytes of responses made their first configuration."""

    process: subprocess.Popen[str]
    size: float


@contextmanager
def clients(programs: Path, target: str, tls: Path, types: str, names: str) -> Iterator[Clients]:
    """Connect all clients; yield when each has its first configuration."""
    command: list[str | Path] = [
        programs / "ads_clients",
        "--target",
        target,
        "--tls",
        tls,
        "--domain",
        identity.part_dns("manager"),
    ]
    command += ["--clients", str(CLIENTS), "--node", "sidecar~127.0.0.1~bench-{}.default~default.svc.cluster.local"]
    command += ["--count", EDS, "--types", types, "--names", names]
    with measure.process(*command, core=measure.CLIENT_CORE) as process:
        word, _, size = measure.first_line(process).partition(" ")
        if word != "ready":
            raise RuntimeError("the clients didn't get their first configuration")
        yield Clients(process, float(size))


@contextmanager
def floor_process(programs: Path, tls: Path, response: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the floor on the server's core."""
    command: list[str | Path] = [
        programs / "ads_floor",
        "--listen",
        "127.0.0.1:0",
        "--tls",
        tls,
        "--response",
        response,
    ]
    with measure.process(*command, core=measure.SERVER_CORE, stdin=True) as process:
        yield process, measure.first_line(process)


def bytes_of_one_push() -> bytes:
    """Return the response that one endpoint's change comes to."""
    assignment = endpoint_pb2.ClusterLoadAssignment(cluster_name=CLUSTER)
    address = assignment.endpoints.add().lb_endpoints.add().endpoint.address.socket_address
    address.address, address.port_value = "127.0.0.1", 20_001
    response = discovery_pb2.DeltaDiscoveryResponse(system_version_info="17", type_url=EDS, nonce="17")
    response.resources.add(name=CLUSTER, version="0123456789abcdef").resource.Pack(assignment)
    return response.SerializeToString()


def workload(name: str, app: str, port: int, account: str) -> dict[str, Any]:
    """Return a WorkloadEntry."""
    return {
        "apiVersion": "networking.istio.io/v1beta1",
        "kind": "WorkloadEntry",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "address": "127.0.0.1",
            "ports": {"http": port},
            "labels": {"app": app},
            "serviceAccount": account,
        },
    }


def documents() -> list[dict[str, Any]]:
    """Return one service, and two hundred workloads that call it."""
    made: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "catalog", "namespace": "default"},
            "spec": {"ports": [{"name": "http", "port": 80}], "selector": {"app": "catalog"}},
        },
        {
            "apiVersion": "networking.istio.io/v1beta1",
            "kind": "Sidecar",
            "metadata": {"name": "bench", "namespace": "default"},
            "spec": {
                "workloadSelector": {"labels": {"app": "bench"}},
                "ingress": [
                    {
                        "port": {"number": 15006, "name": "http", "protocol": "HTTP"},
                        "defaultEndpoint": "unix:///run/bench/app.sock",
                    }
                ],
                "egress": [{"bind": "unix:///run/bench/out.sock", "hosts": ["./*"]}],
            },
        },
    ]
    return made + [workload(f"bench-{index}", "bench", 15006, "bench") for index in range(CLIENTS)]
