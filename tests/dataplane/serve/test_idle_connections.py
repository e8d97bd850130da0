"""Ten thousand connections without a call cost little memory each, slow nobody down, and all close at the end."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from serve_echo import AsyncEcho, EchoStub
from serve_hostile import resident, split
from serve_rig import native_channel, native_server

from meshwright.dataplane.grpc import Limits

COUNT = 10_000
PLAIN, TLS = 44 << 10, 64 << 10  # bytes of the server's memory that a connection may cost; half of it was measured


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Let this process hold COUNT sockets and some more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < COUNT + 1000:
        pytest.skip(f"RLIMIT_NOFILE's hard limit is {hard}; {COUNT} connections need {COUNT + 1000}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.asynccontextmanager
async def crowd(*arguments: object) -> AsyncIterator[asyncio.subprocess.Process]:
    """The client's process (two processes, because one may not hold both ends' sockets)."""
    script = Path(__file__).parent / "serve_idle_client.py"
    process = await asyncio.create_subprocess_exec(
        sys.executable, script, *map(str, arguments), stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "mutual TLS"])
async def test_ten_thousand(
    echo: AsyncEcho, server_identity: Any, client_identity: Any, tmp_path: Path, many_descriptors: None, is_tls: bool
) -> None:
    """Each costs a bounded number of bytes (printed); calls of others are answered; stop closes them all."""
    # The clients answer no PING, and on a busy machine it takes minutes until the last one has connected.
    limits = Limits(
        connections=COUNT + 10, connections_per_peer=COUNT + 10, handshake_seconds=60, keep_alive_seconds=600
    )
    identities = (server_identity, client_identity) if is_tls else (None, None)
    arguments: list[object] = []
    if is_tls:
        current = client_identity.current()
        (tmp_path / "chain.pem").write_bytes(current.cert_chain_pem)
        (tmp_path / "key.pem").touch(mode=0o600)
        (tmp_path / "key.pem").write_bytes(current.key_pem)
        arguments = [tmp_path]
    async with (
        native_server(echo, identity=identities[0], limits=limits) as (server, address),
        native_channel(address, identities[1]) as channel,
    ):
        stub = EchoStub(channel)
        for _ in range(100):
            await stub.unary("warm", timeout=10)
        before = resident()
        async with crowd(*split(address), COUNT, *arguments) as process:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
            assert server.stats()["connections_open"] == COUNT + 1
            each = (resident() - before) / COUNT
            times = []
            for number in range(100):
                begun = time.perf_counter()
                assert await stub.unary(str(number), timeout=10) == str(number)
                times.append(time.perf_counter() - begun)
            print(f"{each / 1024:.1f} KiB a connection; median call {sorted(times)[50] * 1e3:.2f} ms")
            assert each < (TLS if is_tls else PLAIN)
            await server.stop(0)
            assert await process.stdout.readline() == b"closed\n"
            assert await process.wait() == 0
        assert server.stats()["connections_open"] == 0
