"""The test service on NativeServer, in plain text and with mutual TLS, and folders of certificates for clients."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import toolchains
from interop_service import TestServicer, add_to_server

from meshwright.core.identity import StaticIdentity
from meshwright.dataplane.grpc import NativeServer

SERVER_ID = "spiffe://mesh.local/ns/test/sa/server"
CLIENT_ID = "spiffe://mesh.local/ns/test/sa/client"
NAME = "server.test.svc"


@dataclass(frozen=True)
class Ends:
    """Who the two ends are; for programs of other languages the same in folders. None: plain text."""

    server: StaticIdentity | None
    client: StaticIdentity | None
    server_folder: Path | None
    client_folder: Path | None
    server_id: str = SERVER_ID
    name: str = NAME


@pytest.fixture
def plain() -> Ends:
    return Ends(None, None, None, None)


@pytest.fixture
def mutual(pki: Any, tmp_path: Path) -> Ends:
    server, client = pki.identity(SERVER_ID, dns=[NAME]), pki.identity(CLIENT_ID)
    return Ends(
        StaticIdentity(server),
        StaticIdentity(client),
        pki.write(server, tmp_path / "server"),
        pki.write(client, tmp_path / "client"),
    )


@pytest.fixture(params=["plain", "mutual"])
def ends(request: pytest.FixtureRequest) -> Ends:
    made: Ends = request.getfixturevalue(request.param)
    return made


@asynccontextmanager
async def serving(ends: Ends) -> AsyncIterator[str]:
    """Run the test service on NativeServer; yields host:port."""
    server = NativeServer("127.0.0.1:0", ends.server)
    add_to_server(TestServicer(), server)
    address = await server.start()
    try:
        yield address
    finally:
        await server.stop(0)


@pytest.fixture
async def plain_server(plain: Ends) -> AsyncIterator[str]:
    async with serving(plain) as address:
        yield address


@pytest.fixture
async def mutual_server(mutual: Ends) -> AsyncIterator[str]:
    async with serving(mutual) as address:
        yield address


@pytest.fixture
async def server(ends: Ends) -> AsyncIterator[str]:
    async with serving(ends) as address:
        yield address


@pytest.fixture(scope="session")
def go_programs() -> Path:
    return toolchains.go()


@pytest.fixture(scope="session")
def node_folder() -> Path:
    return toolchains.node()


@pytest.fixture(scope="session")
def java_jars() -> Path:
    return toolchains.java()
