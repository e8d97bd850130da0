"""File descriptors beside calls on Unix sockets, in both directions, with and without TLS; none is left open."""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from serve_echo import EchoStub
from serve_rig import native_channel, native_server

from meshwright.core.identity import StaticIdentity
from meshwright.dataplane.grpc import Limits, open_descriptors


def key_of(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


class Exchange:
    """Reads the file whose inode the request names, and sends one of its own with the answer."""

    def __init__(self, reply: Path) -> None:
        self.reply = reply

    async def unary(self, request: str, context: Any) -> str:
        device, inode = map(int, request.split("/"))
        received = await context.descriptors.take(device, inode, timeout=5)
        with os.fdopen(received) as file:
            text = file.read()
        with self.reply.open() as reply:
            context.send_descriptor(reply.fileno())
        return f"{os.stat(self.reply).st_dev}/{os.stat(self.reply).st_ino}/{text}"

    async def download(self, request: str, context: Any) -> AsyncIterator[str]:
        yield request

    upload = chat = unary


@pytest.fixture(params=["tls", "plain"])
def identities(
    request: pytest.FixtureRequest, server_identity: StaticIdentity, client_identity: StaticIdentity
) -> tuple[Any, Any]:
    return (server_identity, client_identity) if request.param == "tls" else (None, None)


@pytest.fixture(autouse=True)
def no_leak() -> Iterator[None]:
    """After each test as many descriptors are open as before, in the process and by our own count."""
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert open_descriptors() == 0
    # The loop's own (epoll, its socket pair, our eventfd) are of the loop that the test ran on.
    assert len(os.listdir("/proc/self/fd")) <= before + 4


async def gone() -> None:
    """Wait until no connection holds a descriptor any more."""
    async with asyncio.timeout(10):
        while open_descriptors():
            await asyncio.sleep(0)


async def test_both_directions(tmp_path: Path, identities: tuple[Any, Any]) -> None:
    """A descriptor goes in front of the request, another one in front of the response, again and again."""
    (tmp_path / "reply").write_text("from the server")
    address = f"unix:{tmp_path}/x.sock"
    async with native_server(Exchange(tmp_path / "reply"), address, identities[0]):
        async with native_channel(address, identities[1]) as channel:
            stub = EchoStub(channel)
            for round_number in range(100):
                path = tmp_path / f"request-{round_number}"
                path.write_text(f"round {round_number}")
                with path.open() as file:
                    channel.send_descriptor(file.fileno())
                    answer = await stub.unary("/".join(map(str, key_of(file.fileno()))), timeout=10)
                device, inode, text = answer.split("/")
                assert text == f"round {round_number}"
                received = await channel.descriptors.take(int(device), int(inode), 5)
                with os.fdopen(received) as file:
                    assert file.read() == "from the server"
        await gone()


async def test_the_same_descriptor_many_times_at_once(tmp_path: Path, identities: tuple[Any, Any]) -> None:
    """Calls that each bring the same descriptor each get it: duplicates are closed, but counted."""
    (tmp_path / "reply").write_text("")
    (tmp_path / "request").write_text("shared")
    address = f"unix:{tmp_path}/x.sock"
    async with native_server(Exchange(tmp_path / "reply"), address, identities[0]):
        async with native_channel(address, identities[1]) as channel:
            await channel.ready(10)
            with (tmp_path / "request").open() as file:
                calls = []
                for _ in range(50):
                    channel.send_descriptor(file.fileno())
                    calls.append(EchoStub(channel).unary("/".join(map(str, key_of(file.fileno()))), timeout=10))
                # One open file, read by all: the text comes once.
                texts = [answer.split("/")[2] for answer in await asyncio.gather(*calls)]
                assert sorted(texts)[-1] == "shared"
        await gone()


async def test_what_never_comes_is_a_timeout(tmp_path: Path, identities: tuple[Any, Any]) -> None:
    """Waiting for a descriptor ends with its timeout, and at the latest with the connection."""
    address = f"unix:{tmp_path}/x.sock"
    async with (
        native_server(Exchange(tmp_path / "reply"), address, identities[0]),
        native_channel(address, identities[1]) as channel,
    ):
        with pytest.raises(TimeoutError, match="device 1 inode 2"):
            await channel.descriptors.take(1, 2, 0.05)
        waiting = asyncio.ensure_future(channel.descriptors.take(1, 2, 60))
        await asyncio.sleep(0)
        await channel.close()
        with pytest.raises(ConnectionError):
            await waiting


async def test_tcp_carries_none(server_identity: StaticIdentity, client_identity: StaticIdentity) -> None:
    """A handler that asks for descriptors of a TCP connection gets a clear error."""
    async with (
        native_server(Exchange(Path("/")), identity=server_identity) as (_, address),
        native_channel(address, client_identity) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError, match="descriptors travel on Unix sockets only"):
            await EchoStub(channel).unary("1/2", timeout=10)


async def test_a_flood_of_descriptors_is_bounded(tmp_path: Path) -> None:
    """A peer that sends descriptors without end costs a bounded number, which its end frees."""
    address = f"unix:{tmp_path}/x.sock"
    limits = Limits(ping_interval_seconds=1e-6)  # pings carry the descriptors here
    async with native_server(Exchange(tmp_path / "reply"), address, limits=limits):
        client = socket.socket(socket.AF_UNIX)
        client.connect(f"{tmp_path}/x.sock")
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        ping = bytes([0, 0, 8, 6, 0, 0, 0, 0, 0]) + bytes(8)
        for index in range(200):
            path = tmp_path / f"flood-{index}"
            path.touch()
            with path.open() as file:
                rights = array.array("i", [file.fileno()])
                client.sendmsg([ping[:1]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
                client.sendall(ping[1:])
            while len(client.recv(4096)) == 4096:  # the answer to the ping: it has been read
                pass
        assert open_descriptors() == 64
        client.close()
        await gone()
