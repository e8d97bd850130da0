"""Descriptors as NSM's Go programs send them: by edwarnicke/grpcfd, in both directions, with and without TLS."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import grpc
import pytest
import toolchains
from google.protobuf.wrappers_pb2 import StringValue

from meshwright.dataplane.grpc import NativeChannel, NativeServer, open_descriptors

pytestmark = pytest.mark.timeout(900)  # the first test of a machine builds

SERVICE = "meshwright.test.Exchange"
ROUNDS, WORKERS = 50, 4


def url_of(status: os.stat_result) -> str:
    return f"inode://{status.st_dev}/{status.st_ino}"


def key_of(url: str) -> tuple[int, int]:
    device, _, inode = url.removeprefix("inode://").partition("/")
    return int(device), int(inode)


def read_and_close(descriptor: int) -> str:
    """Read the file behind a descriptor that was made to be passed on (O_PATH)."""
    try:
        return Path(f"/proc/self/fd/{descriptor}").read_text()
    finally:
        os.close(descriptor)


class Exchange:
    """Reads the file that comes with a request, and answers with one of its own."""

    def __init__(self, reply: Path) -> None:
        self.reply = reply

    async def swap(self, request: StringValue, context: Any) -> StringValue:
        text = read_and_close(await context.descriptors.take(*key_of(request.value), timeout=10))
        with self.reply.open() as reply:
            context.send_descriptor(reply.fileno())
            return StringValue(value=f"{url_of(os.fstat(reply.fileno()))} {text}")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    request, reply = tmp_path / "request", tmp_path / "reply"
    request.write_text("from the client")
    reply.write_text("from the server")
    return request, reply


async def none_left() -> None:
    async with asyncio.timeout(10):
        while open_descriptors():
            await asyncio.sleep(0)


@pytest.mark.parametrize("workers", [1, WORKERS])
async def test_client(workers: int, go_programs: Path, ends: Any, files: tuple[Path, Path], tmp_path: Path) -> None:
    """A Go client swaps descriptors with NativeServer, one after the other and several at a time."""
    request, reply = files
    server = NativeServer(f"unix:{tmp_path}/x.sock", ends.server)
    handler = grpc.unary_unary_rpc_method_handler(
        Exchange(reply).swap,
        request_deserializer=StringValue.FromString,
        response_serializer=StringValue.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Swap": handler}),))
    await server.start()
    try:
        arguments = ["-socket", tmp_path / "x.sock", "-file", request, f"-rounds={ROUNDS}", f"-workers={workers}"]
        if ends.client_folder:
            arguments += ["-tls", ends.client_folder, "-name", ends.name]
        printed = await toolchains.run(go_programs / "descriptors", *arguments)
        assert printed == f"swapped {ROUNDS * workers}\n"
        await none_left()
    finally:
        await server.stop(0)


async def test_server(go_programs: Path, ends: Any, files: tuple[Path, Path], tmp_path: Path) -> None:
    """Our channel swaps descriptors with a Go server."""
    request, reply = files
    arguments = ["-serve", "-socket", tmp_path / "x.sock", "-file", reply]
    if ends.server_folder:
        arguments += ["-tls", ends.server_folder]
    async with toolchains.started(go_programs / "descriptors", *arguments) as process:
        assert process.stdout
        assert await process.stdout.readline() == b"ready\n"
        async with NativeChannel(f"unix:{tmp_path}/x.sock", ends.client, peer=ends.server_id) as channel:
            call = channel.unary_unary(
                f"/{SERVICE}/Swap",
                request_serializer=StringValue.SerializeToString,
                response_deserializer=StringValue.FromString,
            )
            for _ in range(ROUNDS):
                with request.open() as file:
                    channel.send_descriptor(file.fileno())
                    answer = await call(StringValue(value=url_of(os.fstat(file.fileno()))), timeout=20)
                url, _, text = answer.value.partition(" ")
                assert text == "from the client"
                assert read_and_close(await channel.descriptors.take(*key_of(url), timeout=10)) == "from the server"
        await none_left()
