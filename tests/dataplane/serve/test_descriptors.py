"""File descriptors beside calls on Unix sockets, in both directions, with and without TLS; none is left open."""

from __future__ import annotations

import array
import asyncio
import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO, Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serve_echo import EchoStub
from serve_rig import native_channel, native_server, until

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
    # The loop's own (epoll, its socket pair, our eventfd) are of the loop that the test ran on. Rust's threads close a
    # connection's a moment after the test.
    deadline = time.monotonic() + 10
    while len(os.listdir("/proc/self/fd")) > before + 4:
        assert time.monotonic() < deadline, os.listdir("/proc/self/fd")
        time.sleep(0.01)


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


class Claimer:
    """Takes what a request asks for, at once, as often as it says; counts what it got."""

    def __init__(self) -> None:
        self.claimed = 0
        self.waiting = asyncio.Event()

    async def unary(self, request: str, context: Any) -> str:
        if request == "wait":
            self.waiting.set()
            await asyncio.Event().wait()
        *keys, times = request.split()
        for key in keys * int(times):
            device, inode = map(int, key.split("/"))
            with contextlib.suppress(TimeoutError):
                os.close(await context.descriptors.take(device, inode, timeout=0))
                self.claimed += 1
        return request

    download = upload = chat = unary


class Sequence:
    """One peer's doings with descriptors: over calls, cancelled calls, and connections that break in a message."""

    def __init__(self, folder: Path, files: list[IO[bytes]]) -> None:
        self.folder, self.files, self.sent = folder, files, 0
        self.claimer = Claimer()

    async def run(self, steps: list[tuple[str, int, int]]) -> dict[str, int]:
        """Do all steps and go; return what the server counted."""
        address = f"unix:{self.folder}/x.sock"
        async with native_server(self.claimer, address) as (server, _):
            async with contextlib.AsyncExitStack() as stack:
                channel = await stack.enter_async_context(native_channel(address))
                for what, which, count in steps:
                    if what == "disconnect":
                        self._disconnect(which, count)
                    elif what == "reconnect":
                        await channel.close()
                        channel = await stack.enter_async_context(native_channel(address))
                    else:
                        await getattr(self, what)(channel, which, count)
            async with asyncio.timeout(10):
                while server.stats()["connections_open"]:
                    await asyncio.sleep(0)
            return server.stats()

    def _send(self, channel: Any, files: list[IO[bytes]]) -> str:
        for file in files:
            channel.send_descriptor(file.fileno())
        self.sent += len(files)
        return " ".join("/".join(map(str, key_of(file.fileno()))) for file in files)

    async def different(self, channel: Any, which: int, count: int) -> None:
        """Several in one call, of which each is taken once, or twice, or not at all."""
        keys = self._send(channel, self.files[which:])
        await EchoStub(channel).unary(f"{keys} {count % 3}", timeout=10)

    async def same(self, channel: Any, which: int, count: int) -> None:
        """The same one by several calls at once."""
        calls = []
        for _ in range(count):
            key = self._send(channel, [self.files[which]])
            calls.append(EchoStub(channel).unary(f"{key} 1", timeout=10))
        await asyncio.gather(*calls)

    async def cancel(self, channel: Any, which: int, count: int) -> None:
        """With a call that ends before anybody took them."""
        self._send(channel, self.files[:count])
        self.claimer.waiting.clear()
        call = EchoStub(channel).unary("wait", timeout=10)
        async with asyncio.timeout(10):
            await self.claimer.waiting.wait()
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call

    def _disconnect(self, which: int, count: int) -> None:
        """In the middle of a frame, with several descriptors beside one byte of it."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{self.folder}/x.sock")
            client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            rights = array.array("i", [self.files[which].fileno()] * count)
            client.sendmsg([bytes([0, 0, 8])], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        self.sent += count


def open_now(*kinds: str) -> int:
    """Count the descriptors of this process, all or those of some kinds."""
    targets = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that listed them
            targets.append(os.readlink(f"/proc/self/fd/{number}"))
    return sum(target.startswith(kinds) for target in targets) if kinds else len(targets)


STEPS = st.tuples(
    st.sampled_from(["different", "same", "cancel", "disconnect", "reconnect"]),
    st.integers(min_value=0, max_value=4),
    st.integers(min_value=1, max_value=5),
)


def test_no_sequence_leaves_a_descriptor_open() -> None:
    """Whatever a peer does: what came was taken or closed, and as many descriptors are open as before."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack, asyncio.Runner() as runner:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(5)]
        runner.get_loop()
        gc.collect()  # earlier tests' loops keep theirs until then
        of_connections = ("socket:", "anon_inode:[pidfd]")
        idle = open_now(*of_connections)
        runner.run(Sequence(Path(folder), files).run([("same", 0, 1)]))  # opens what the loop and the runtime keep
        runner.run(until(lambda: open_now(*of_connections) == idle))  # the peer's ends close a moment later
        before = open_now()

        @settings(max_examples=30)
        @given(steps=st.lists(STEPS, min_size=1, max_size=8))
        def example(steps: list[tuple[str, int, int]]) -> None:
            sequence = Sequence(Path(folder), files)
            counted = runner.run(sequence.run(steps))
            assert counted["descriptors_received"] == counted["descriptors_claimed"] + counted["descriptors_closed"]
            assert counted["descriptors_claimed"] == sequence.claimer.claimed
            assert counted["descriptors_received"] <= sequence.sent
            runner.run(until(lambda: open_now() == before))
            assert open_descriptors() == 0

        example()


SERVE = """
import asyncio, sys
from meshwright.dataplane.grpc import NativeServer
async def serve():
    server = NativeServer(sys.argv[1], None)
    await server.start()
    print("serves", flush=True)
    await server.wait_for_termination()
asyncio.run(serve())
"""


async def test_a_killed_server_leaves_nothing_that_blocks_the_next(tmp_path: Path) -> None:
    """After kill -9 the socket's file is there still; the next server takes its place, and removes it when it stops."""
    path = tmp_path / "x.sock"
    first = subprocess.Popen([sys.executable, "-c", SERVE, f"unix:{path}"], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout
        with first.stdout as said:
            assert await asyncio.to_thread(said.readline) == "serves\n"
        with pytest.raises(OSError, match="x.sock"):
            async with native_server(Claimer(), f"unix:{path}"):
                pass
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait(10)
    assert path.is_socket()
    async with native_server(Claimer(), f"unix:{path}"), native_channel(f"unix:{path}") as channel:
        assert await EchoStub(channel).unary("0", timeout=10) == "0"
    assert not path.exists()
