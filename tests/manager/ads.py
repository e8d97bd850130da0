"""The discovery half of a manager, for Envoys, with a mesh that a test changes."""

from __future__ import annotations

import contextlib
import socket as sockets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envoys import eventually, serving
from meshes import World

from meshwright.manager.xds import names
from meshwright.manager.xds.hub import Hub
from meshwright.manager.xds.server import DiscoveryServer
from meshwright.manager.xds.subscription import TypeState
from pki import Pki


@dataclass
class Manager:
    """The discovery half of a manager, with a mesh that the test changes."""

    world: World
    address: str
    hub: Hub = field(default_factory=Hub)

    def apply(self, text: str, **options: Any) -> None:
        self.hub.publish(self.world.apply(text, **options))

    def states(self, workload: str) -> dict[str, TypeState]:
        [connection] = [c for c in self.hub.connections() if c.client.node.workload == workload]
        return connection.subscription.types

    def acknowledged(self, workload: str) -> int:
        found = [c for c in self.hub.connections() if c.client.node.workload == workload]
        return found[-1].subscription.acknowledged_revision if found else 0

    async def settled(self, *workloads: str) -> None:
        revision = self.world.mesh.revision

        def all_at() -> bool:
            return all(self.acknowledged(workload) == revision for workload in workloads)

        await eventually(all_at, f"{workloads} at {revision}")


@contextlib.asynccontextmanager
async def manager(
    pki: Pki, text: str, port: int = 0, parameters: names.Parameters | None = None
) -> AsyncIterator[Manager]:
    """Serve a mesh of objects that a test changes."""
    async with manager_of(pki, World(text, parameters), port) as made:
        yield made


@contextlib.asynccontextmanager
async def manager_of(pki: Pki, world: World, port: int = 0) -> AsyncIterator[Manager]:
    """Serve a mesh that a test changes."""
    made = Manager(world, "")
    made.hub.publish(made.world.snapshot)
    async with serving(
        f"127.0.0.1:{port}", pki.part("manager"), DiscoveryServer(made.hub, "mesh.local").add_to
    ) as address:
        made.address = address
        yield made


def free_port() -> int:
    with sockets.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def located(text: str, folder: Path, *ports: int) -> str:
    """Put sockets into the test's folder and replace the mesh's ports."""
    text = text.replace("/run/", f"{folder}/")
    for number, port in zip((21001, 21002), ports, strict=False):
        text = text.replace(str(number), str(port))
    return text
