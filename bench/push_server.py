"""Two servers of 1,000 clusters with ten endpoints each, by increments: `cache` is ours, `bare` only writes.

`bare` is our gRPC server with a handler that knows no protocol: it answers the first request of each type with the same
shared bytes for everybody, and reads on without looking. Each line on standard input changes one cluster's endpoints.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from meshwright.api.envoy.config.cluster.v3.cluster_pb2 import Cluster
from meshwright.api.envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from meshwright.core.grpc import Server
from meshwright.core.identity import FileIdentity
from meshwright.manager.xds import types, wire
from meshwright.manager.xds.cache import Cache
from meshwright.manager.xds.server import SERVICE, XdsServer

SERVICES, ENDPOINTS = 1_000, 10
GROUP = "bench"


def name(number: int) -> str:
    """Return a cluster's name."""
    return f"outbound|80||service-{number}.default.svc.cluster.local"


def cluster(number: int) -> Cluster:
    """Return a cluster."""
    made = Cluster(name=name(number), type=Cluster.EDS)
    made.connect_timeout.seconds = 1
    made.eds_cluster_config.eds_config.ads.SetInParent()
    return made


def endpoints(number: int, port: int = 8080) -> ClusterLoadAssignment:
    """Return a cluster's endpoints; the first has `port`."""
    made = ClusterLoadAssignment(cluster_name=name(number))
    locality = made.endpoints.add()
    for index in range(ENDPOINTS):
        address = locality.lb_endpoints.add().endpoint.address.socket_address
        address.address = f"10.{number // 250}.{number % 250}.{index + 1}"
        address.port_value = port if index == 0 else 8080
    return made


class Bare:
    """The handler that only writes."""

    def __init__(self) -> None:
        self._streams: set[Any] = set()
        self._changes = 0
        self._first = {
            type_url.encode(): response(type_url, [wire.resource(name(n), make(n)) for n in range(SERVICES)], "1")
            for type_url, make in ((types.CLUSTER, cluster), (types.ENDPOINT, endpoints))
        }

    def add_to(self, server: Server) -> None:
        """Register it."""
        methods: dict[str, Any] = {"DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(self.serve)}
        server.add_registered_method_handlers(SERVICE, methods)

    async def serve(self, _requests: Any, context: Any) -> None:
        """Write the first answers, and read until the client leaves."""
        waiting = dict(self._first)
        self._streams.add(context)
        try:
            while (raw := await context.read()) is not grpc.aio.EOF:
                for type_url in [one for one in waiting if one in raw]:
                    await context.write(waiting.pop(type_url))
        finally:
            self._streams.discard(context)

    def change(self) -> None:
        """Write a changed resource to everybody."""
        self._changes += 1
        made = wire.resource(name(0), endpoints(0, 9000 + self._changes))
        shared = response(types.ENDPOINT, [made], str(1 + self._changes))
        for context in self._streams:
            context.write_now(shared)


def response(type_url: str, resources: list[wire.Resource], nonce: str) -> bytes:
    """Put a response together."""
    bodies = (resource.delta for resource in resources)
    return wire.delta_response(type_url, "1", bodies, ()) + wire.nonce(nonce)


class Ours:
    """The cache."""

    def __init__(self) -> None:
        self._cache = Cache()
        self._changes = 0
        everything = [made(n) for n in range(SERVICES) for made in (cluster, endpoints)]
        self._cache.replace(GROUP, everything)

    def add_to(self, server: Server) -> None:
        """Register it."""
        XdsServer(self._cache).add_to(server)

    def change(self) -> None:
        """Change a resource."""
        self._changes += 1
        self._cache.update(GROUP, [endpoints(0, 9000 + self._changes)])


async def main(kind: str, tls: str) -> None:
    """Serve until standard input ends."""
    identity = FileIdentity(Path(tls))
    identity.load()
    served = Ours() if kind == "cache" else Bare()
    server = Server("127.0.0.1:0", identity)
    served.add_to(server)
    print(await server.start(), flush=True)
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def line() -> None:
        if sys.stdin.readline():
            served.change()
        else:
            ended.set()

    loop.add_reader(sys.stdin, line)
    await ended.wait()
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
