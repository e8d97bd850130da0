"""The channel over the life of its server: not there yet, killed, back again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from serve_echo import AsyncEcho, EchoStub
from serve_rig import native_channel, native_server

SERVER = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
from serve_echo import AsyncEcho, add_echo_to_server
from meshwright.dataplane.grpc import NativeServer
async def main():
    server = NativeServer(sys.argv[1], None)
    add_echo_to_server(AsyncEcho(), server)
    print(await server.start(), flush=True)
    await server.wait_for_termination()
asyncio.run(main())
"""


@contextlib.contextmanager
def server_process(address: str) -> Any:
    command = [sys.executable, "-c", SERVER, address, str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == address
        try:
            yield process
        finally:
            process.kill()


async def test_no_server(tmp_path: Path) -> None:
    """A call fails with UNAVAILABLE and the reason; the next waits no longer than it says."""
    async with native_channel(f"unix:{tmp_path}/nobody.sock") as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="No such file") as caught:
            await EchoStub(channel).unary("hello", timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE
        with pytest.raises(grpc.aio.AioRpcError, match="No such file") as caught:
            await EchoStub(channel).unary("hello", timeout=0.2, wait_for_ready=True)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        with pytest.raises(grpc.aio.AioRpcError, match="No such file") as caught:
            await channel.ready(0.2)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_call_that_fails_while_it_begins_says_so(tmp_path: Path) -> None:
    """The transport may have given up before the first request is handed to it; that is the call's status, not ours."""
    async with native_channel(f"unix:{tmp_path}/nobody.sock") as channel:
        for _ in range(500):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in EchoStub(channel).download("1", timeout=10):
                    pass
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_waiting_for_a_server_that_comes(tmp_path: Path, echo: AsyncEcho) -> None:
    """A call that waits for ready goes through once the server is there."""
    address = f"unix:{tmp_path}/late.sock"
    async with native_channel(address) as channel:
        call = EchoStub(channel).unary("hello", timeout=30, wait_for_ready=True)
        await channel.wait_for_state_change(grpc.ChannelConnectivity.IDLE)
        async with native_server(echo, address):
            assert await call == "hello"
            assert channel.get_state() is grpc.ChannelConnectivity.READY


async def test_killed_and_started_again(tmp_path: Path) -> None:
    """Calls under way fail with UNAVAILABLE when the server is killed; afterwards the channel finds the new one."""
    address = f"unix:{tmp_path}/killed.sock"
    async with native_channel(address) as channel:
        stub = EchoStub(channel)
        with server_process(address) as process:
            assert await stub.unary("one", timeout=10, wait_for_ready=True) == "one"
            waiting = stub.unary("wait", timeout=30)
            stream = stub.chat(timeout=30)
            await stream.write("a")
            assert await stream.read() == "A"
            process.send_signal(signal.SIGKILL)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await waiting
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stream.read()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        with server_process(address):
            assert await stub.unary("two", timeout=30, wait_for_ready=True) == "two"


async def test_a_server_that_says_nothing(tmp_path: Path) -> None:
    """A listener that never speaks HTTP/2 is no connection."""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{tmp_path}/silent.sock")
        silent.listen()
        async with native_channel(f"unix:{tmp_path}/silent.sock") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await EchoStub(channel).unary("hello", timeout=0.3)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_stopped_server_lets_calls_finish(echo: AsyncEcho) -> None:
    """stop(grace) takes no new connections, finishes what runs, and ends what doesn't finish."""
    async with native_server(echo) as (server, address):
        async with native_channel(address) as channel:
            stub = EchoStub(channel)
            stream = stub.chat(timeout=30)
            await stream.write("a")
            assert await stream.read() == "A"
            stopping = asyncio.create_task(server.stop(10))
            await asyncio.sleep(0)
            await stream.write("b")
            assert await stream.read() == "B"
            await stream.done_writing()
            assert await stream.read() is grpc.aio.EOF
            await stopping
        assert server.stats()["connections_open"] == 0


async def test_a_stop_without_grace_cancels(echo: AsyncEcho) -> None:
    """What isn't finished in time is cancelled on both sides."""
    async with native_server(echo) as (server, address), native_channel(address) as channel:
        call = EchoStub(channel).unary("wait", timeout=30)
        async with asyncio.timeout(10):
            await echo.started.wait()
            await server.stop(0)
        assert echo.cancelled.is_set()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_closed_channel(echo: AsyncEcho) -> None:
    """A closed channel refuses calls."""
    async with native_server(echo) as (_, address):
        channel = await native_channel(address).__aenter__()
        await channel.close()
        with pytest.raises(grpc.aio.AioRpcError, match="the channel is closed") as caught:
            await EchoStub(channel).unary("hello", timeout=10)
        assert caught.value.code() is grpc.StatusCode.CANCELLED
        assert channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN


async def test_a_taken_address_is_named(echo: AsyncEcho) -> None:
    """Binding twice fails with the address in the error."""
    async with native_server(echo) as (_, address):
        with pytest.raises(OSError, match=f"cannot listen on {address}"):
            async with native_server(echo, address):
                pass


async def test_grpcio_on_a_unix_socket(tmp_path: Path, echo: AsyncEcho) -> None:
    """grpcio names the percent-encoded path as authority, which HTTP/2 in Rust refuses by itself; we take it."""
    address = f"unix:{tmp_path}/a_b-c%d.sock"
    async with native_server(echo, address), grpc.aio.insecure_channel(address) as channel:
        for word in ("one", "two"):
            assert await EchoStub(channel).unary(word, timeout=10) == word
