"""grpc's interoperation cases with grpc-go: its client against NativeServer, our channel against its server."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import toolchains
from interop_cases import CASES

from meshwright.dataplane.grpc import NativeChannel

pytestmark = pytest.mark.timeout(900)  # the first test of a machine builds

# What grpc-go's client knows; the compressed cases are its unary and streaming ones with its own compressor.
GO_CASES = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
]


@pytest.mark.parametrize("name", [*GO_CASES, "pick_first_unary", "rpc_soak", "channel_soak"])
async def test_client(name: str, go_programs: Path, plain_server: str) -> None:
    """grpc-go's own program as it is."""
    host, _, port = plain_server.rpartition(":")
    # The soak's limits on time are for quiet machines; what counts here is that each of its calls is answered.
    limits = ["--soak_overall_timeout_seconds=40", "--soak_per_iteration_max_acceptable_latency_ms=30000"]
    arguments = [f"--server_host={host}", f"--server_port={port}", f"--test_case={name}", *limits]
    await toolchains.run(go_programs / "client", *arguments)


@pytest.mark.parametrize("gzip", [False, True], ids=["identity", "gzip"])
async def test_client_with_mutual_tls(gzip: bool, go_programs: Path, mutual: Any, mutual_server: str) -> None:
    """grpc-go's cases with a client certificate, for which its program has no flag; each on its own connection."""
    arguments = ["-target", mutual_server, "-tls", mutual.client_folder, "-name", mutual.name, f"-gzip={gzip}".lower()]
    for name in GO_CASES:
        assert f"passed {name}" in await toolchains.run(go_programs / "cases", *arguments, name)


SERVER_CASES = {name: case for name, case in CASES.items() if name != "client_deflated_unary"}  # it has no deflate


@pytest.fixture
async def go_server(go_programs: Path, ends: Any) -> AsyncIterator[str]:
    arguments = ["-tls", ends.server_folder] if ends.server_folder else []
    async with toolchains.started(go_programs / "cases", "-serve", *arguments) as process:
        assert process.stdout
        yield (await process.stdout.readline()).decode().strip()


@pytest.mark.parametrize("name", SERVER_CASES)
async def test_server(name: str, go_server: str, ends: Any) -> None:
    """Our channel as the client of grpc-go's test server."""
    async with NativeChannel(go_server, ends.client, peer=ends.server_id) as channel:
        await CASES[name](channel)


async def test_server_as_it_is(go_programs: Path, mutual: Any) -> None:
    """Our channel against grpc-go's own program: TLS that asks for no client certificate, and no decompressor."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = mutual.server_folder
    files = [f"--tls_cert_file={folder}/cert.pem", f"--tls_key_file={folder}/key.pem"]
    async with (
        toolchains.started(go_programs / "server", f"--port={port}", "--use_tls", *files),
        NativeChannel(f"localhost:{port}", mutual.client, peer=mutual.server_id) as channel,
    ):
        await channel.ready(30)
        for name, case in SERVER_CASES.items():
            if not name.startswith("client_compressed"):
                await case(channel)
