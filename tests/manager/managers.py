"""A whole manager in this process, as `meshwright-manager` runs it, and clients for it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import yaml

import fronts
from meshwright.core.config import Object, from_document
from meshwright.core.identity import StaticIdentity
from meshwright.manager import app
from meshwright.manager.client import Client
from meshwright.manager.settings import ManagerSettings
from pki import Pki


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def running(pki: Pki, folder: Path, **settings: Any) -> AsyncIterator[str]:
    """Run a manager for the length of the context; yields its address."""
    address = f"127.0.0.1:{free_port()}"
    identity = Pki.write(pki.part("manager"), folder / "manager-identity")
    stop = asyncio.Event()
    settings = {"listen": address, "identity": identity, "grpc_front": fronts.CURRENT, "log_level": "error", **settings}
    parsed = ManagerSettings(_cli_parse_args=False, **settings)
    task = asyncio.create_task(app.run(parsed, stop))
    try:
        await ready(address, task)
        yield address
    finally:
        stop.set()
        await task


async def ready(address: str, task: asyncio.Task[None]) -> None:
    """Wait until something listens."""
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(15):
        while not task.done():
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(host, int(port))
                writer.close()
                return
            await asyncio.sleep(0.02)
    await task


def client(pki: Pki, address: str, part: str = "admin") -> Client:
    """Return a client with the identity of a part."""
    return Client(address, StaticIdentity(pki.part(part)))


def objects(text: str, source: str = "file.yaml") -> list[Object]:
    """Read documents as the command line does."""
    found = enumerate(yaml.safe_load_all(text), 1)
    return [from_document(document, f"{source}#{number}") for number, document in found]
