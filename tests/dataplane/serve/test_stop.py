"""The end of a server: what runs may finish, what is new is refused, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from serve_echo import AsyncEcho, EchoStub, SyncEcho
from serve_hostile import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    WINDOW_UPDATE,
    block,
    call,
    frame,
    hostile,
    message,
    request,
)  # fmt: skip
from serve_rig import native_channel, native_server


def tasks() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


async def test_calls_finish_and_new_ones_are_refused(echo: AsyncEcho) -> None:
    """stop(grace): a stream goes on to its end, a further call of grpcio's client is UNAVAILABLE."""
    async with native_server(echo) as (server, address), grpc.aio.insecure_channel(address) as channel:
        stub = EchoStub(channel)
        stream = stub.chat(timeout=30)
        await stream.write("a")
        assert await stream.read() == "A"
        stopping = asyncio.create_task(server.stop(20))
        async with asyncio.timeout(10):  # until the GOAWAY has arrived
            while True:
                try:
                    await stub.unary("more", timeout=10)
                except grpc.aio.AioRpcError as error:
                    assert error.code() is grpc.StatusCode.UNAVAILABLE
                    break
        assert not stopping.done()
        await stream.write("b")
        assert await stream.read() == "B"
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() is grpc.StatusCode.OK
        async with asyncio.timeout(10):
            await stopping
        assert server.stats()["connections_open"] == 0


async def test_a_call_that_begins_too_late_spoils_no_other(echo: AsyncEcho) -> None:
    """A stop ignores it with all its frames, as grpc's C clients send them: a WINDOW_UPDATE comes with each call."""
    more = (1 << 20).to_bytes(4, "big")
    async with native_server(echo) as (server, address), hostile(address) as peer:
        await peer.send(frame(HEADERS, END_HEADERS, 1, block(request("Chat"))), frame(DATA, 0, 1, message("a")))
        assert await peer.until(DATA, stream=1)
        stopping = asyncio.create_task(server.stop(20))
        assert await peer.until(GOAWAY)
        asked = await peer.until(PING)
        assert asked is not None
        late = [call(3, "late"), frame(WINDOW_UPDATE, 0, 3, more), frame(RST_STREAM, 0, 3, bytes(4))]
        await peer.send(frame(PING, ACK, 0, asked.payload), *late)
        await peer.send(frame(WINDOW_UPDATE, 0, 1, more), frame(DATA, END_STREAM, 1, message("b")))
        assert (await peer.status(1))["grpc-status"] == "0"
        async with asyncio.timeout(10):
            await stopping


async def test_handlers_are_cancelled_when_the_grace_is_over(echo: AsyncEcho) -> None:
    """Not before, and the stop waits for what they do then."""
    before = tasks()
    cleaned = asyncio.Event()

    class Cleans(AsyncEcho):
        async def unary(self, request: str, context: Any) -> str:
            self.started.set()
            try:
                await asyncio.Event().wait()
            finally:
                for _ in range(5):
                    await asyncio.sleep(0)
                cleaned.set()
            return request

    servicer = Cleans()
    async with native_server(servicer) as (server, address):
        async with grpc.aio.insecure_channel(address) as channel:
            call = EchoStub(channel).unary("wait", timeout=30)
            async with asyncio.timeout(10):
                await servicer.started.wait()
                began = asyncio.get_running_loop().time()
                await server.stop(0.3)
            assert asyncio.get_running_loop().time() - began >= 0.3
            assert cleaned.is_set()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert server.stats()["connections_open"] == 0
        assert server.stats()["calls_open"] == 0
    async with asyncio.timeout(10):
        while tasks() - before:
            await asyncio.sleep(0.01)


async def test_a_second_stop_hastens_the_first(echo: AsyncEcho) -> None:
    """As in grpc.aio: the shortest grace counts, both return when all has ended, and a third does nothing."""
    async with native_server(echo) as (server, address), native_channel(address) as channel:
        call = EchoStub(channel).unary("wait", timeout=30)
        async with asyncio.timeout(10):
            await echo.started.wait()
            patient = asyncio.create_task(server.stop(60))
            await asyncio.sleep(0)
            await server.stop(None)
            await patient
            assert echo.cancelled.is_set()
            assert not await server.wait_for_termination(0)
            await server.stop(5)
        with pytest.raises(grpc.aio.AioRpcError):
            await call


async def test_a_sync_handlers_stream_ends_with_the_server() -> None:
    """Its thread doesn't wait for requests that never come."""
    ended = threading.Event()

    class Listens(SyncEcho):
        def upload(self, requests: Any, context: Any) -> str:
            try:
                return "+".join(requests)
            except grpc.RpcError:
                assert not context.is_active()
                ended.set()
                raise

    async with native_server(Listens()) as (server, address), native_channel(address) as channel:
        call = EchoStub(channel).upload(timeout=30)
        await call.write("a")
        async with asyncio.timeout(10):
            while server.stats()["calls_open"] == 0:
                await asyncio.sleep(0.01)
            await server.stop(0)
        assert await asyncio.to_thread(ended.wait, 10)


async def test_no_socket_file_is_left(tmp_path: Path, echo: AsyncEcho) -> None:
    """A Unix socket goes with its server."""
    path = tmp_path / "gone.sock"
    async with native_server(echo, f"unix:{path}") as (server, address), native_channel(address) as channel:
        assert await EchoStub(channel).unary("hello", timeout=10) == "hello"
        assert path.is_socket()
        await server.stop(0)
        assert not path.exists()


PROCESS = """
import asyncio, sys
sys.path.insert(0, {folder!r})
from serve_echo import AsyncEcho
from serve_rig import native_server
async def main():
    async with native_server(AsyncEcho(), "unix:" + sys.argv[1]):
        print("ready", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def process(path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    program = PROCESS.format(folder=str(Path(__file__).parent))
    pipe = asyncio.subprocess.PIPE
    started = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(path), stdout=pipe)
    try:
        assert started.stdout
        assert await asyncio.wait_for(started.stdout.readline(), 30) == b"ready\n"
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


async def test_a_killed_servers_socket_is_taken_over(tmp_path: Path, echo: AsyncEcho) -> None:
    """kill -9 leaves a dead file; the next server replaces it, and takes it away at its end."""
    path = tmp_path / "dead.sock"
    async with process(path) as killed:
        with pytest.raises(OSError, match="another process serves it"):
            async with native_server(echo, f"unix:{path}"):
                pass
        os.kill(killed.pid, signal.SIGKILL)
        await killed.wait()
    assert path.is_socket()
    with socket.socket(socket.AF_UNIX) as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(str(path))
    async with native_server(echo, f"unix:{path}") as (_, address), native_channel(address) as channel:
        assert await EchoStub(channel).unary("hello", timeout=10) == "hello"
    assert not path.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ["cancel", "deadline"])
@pytest.mark.parametrize("make", [native_channel, grpc.aio.insecure_channel])
async def test_half_a_stream_of_requests_isnt_a_whole_one(make: Any, ending: str) -> None:
    """A handler whose caller goes within the requests is cancelled; it doesn't see their end, as on grpc.aio it may."""
    seen: list[str] = []
    began, cancelled = asyncio.Event(), asyncio.Event()

    class Counts(AsyncEcho):
        async def upload(self, requests: AsyncIterator[str], context: Any) -> str:
            try:
                async for request in requests:
                    seen.append(request)
                    began.set()
                seen.append("the end")
            except asyncio.CancelledError:
                cancelled.set()
                raise
            return "+".join(seen)

    async with native_server(Counts()) as (_, address), make(address) as channel:
        call = EchoStub(channel).upload(timeout=30 if ending == "cancel" else 1)
        await call.write("a")
        async with asyncio.timeout(10):
            await began.wait()
            if ending == "cancel":
                call.cancel()
            await cancelled.wait()
    assert seen == ["a"]
