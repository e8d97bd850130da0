"""Threads that poll before they sleep: no call is lost by it, a slow caller makes none poll, a quota forbids it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from serve_echo import AsyncEcho, EchoStub, SyncEcho
from serve_rig import native_channel, native_server, until

from meshwright.dataplane.grpc import Limits, busy_poll

POLLING = Limits(busy_poll_seconds=0.01)
"""The longest that can be said: on a loaded machine most waits are shorter too."""
BRIEFLY, NEVER = Limits(busy_poll_seconds=50e-6), Limits(busy_poll_seconds=0)


async def call_until_polled(server: Any, stub: EchoStub) -> None:
    """Make calls one after another until a thread has found one by polling."""
    before = server.stats()["busy_polls_hit"]
    async with asyncio.timeout(30):
        while server.stats()["busy_polls_hit"] < before + 10:
            assert await stub.unary("a", timeout=30) == "a"


@pytest.mark.parametrize("servicer", [AsyncEcho(), SyncEcho()], ids=["async", "threads"])
async def test_calls_one_after_another_are_found_by_polling(servicer: Any) -> None:
    """The answer of Python's thread as well as the next call."""
    async with (
        native_server(servicer, limits=POLLING) as (server, address),
        native_channel(address) as channel,
    ):
        await call_until_polled(server, EchoStub(channel))


async def test_a_slow_caller_makes_no_thread_poll(echo: AsyncEcho) -> None:
    """Pauses longer than the setting: the wait for the next call is slept, and polling in vain is rare."""
    async with (
        native_server(echo, limits=BRIEFLY) as (server, address),
        native_channel(address) as channel,
    ):
        stub = EchoStub(channel)
        await stub.unary("a", timeout=30)
        before = server.stats()["busy_polls_missed"]
        for _ in range(64):
            await asyncio.sleep(0.002)
            assert await stub.unary("a", timeout=30) == "a"
        assert server.stats()["busy_polls_missed"] - before <= 64 * 2 // 8  # one of eight waits at most


async def test_polling_ends_with_the_server(echo: AsyncEcho) -> None:
    """Another server of the process, which doesn't want it, has none from then on."""
    async with (
        native_server(echo, limits=NEVER) as (quiet, address),
        native_channel(address) as channel,
    ):
        stub = EchoStub(channel)
        async with (
            native_server(echo, limits=POLLING) as (server, other),
            native_channel(other) as its,
        ):
            await call_until_polled(server, EchoStub(its))

        def polls() -> list[int]:
            return [quiet.stats()[name] for name in ("busy_polls_hit", "busy_polls_missed")]

        async with asyncio.timeout(30):  # a thread that polls when the server ends comes to its end first
            before = None
            while before != (before := polls()):
                for _ in range(100):
                    assert await stub.unary("a", timeout=30) == "a"


async def test_calls_of_many_callers(echo: AsyncEcho) -> None:
    """Connections and calls side by side, some of them streams, while threads poll."""
    async with native_server(echo, limits=POLLING) as (_, address), asyncio.TaskGroup() as group:

        async def caller() -> None:
            async with native_channel(address) as channel:
                stub = EchoStub(channel)
                for _ in range(100):
                    assert await stub.unary("a", timeout=30) == "a"
                chat = stub.chat(timeout=30)
                for _ in range(20):
                    await chat.write("b")
                    assert await chat.read() == "B"
                await chat.done_writing()
                assert await chat.code() is grpc.StatusCode.OK

        for _ in range(8):
            group.create_task(caller())


async def test_stops_with_calls_under_way(echo: AsyncEcho) -> None:
    """Many servers in turn, each stopped between two calls and in one: each ends, and the call with it."""
    for _ in range(20):
        async with (
            native_server(echo, limits=POLLING) as (server, address),
            native_channel(address) as channel,
        ):
            stub = EchoStub(channel)
            for _ in range(12):
                await stub.unary("a", timeout=30)
            chat = stub.chat(timeout=30)
            await chat.write("a")
            assert await chat.read() == "A"
            async with asyncio.timeout(20):
                await server.stop(0)
            assert await chat.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_drained_server_lets_calls_finish(echo: AsyncEcho) -> None:
    """The grace holds while a thread polls."""
    async with (
        native_server(echo, limits=POLLING) as (server, address),
        native_channel(address) as channel,
    ):
        await call_until_polled(server, EchoStub(channel))
        chat = EchoStub(channel).chat(timeout=30)
        await chat.write("a")
        assert await chat.read() == "A"
        stopping = asyncio.create_task(server.stop(20))
        await chat.write("b")
        assert await chat.read() == "B"
        await chat.done_writing()
        assert await chat.code() is grpc.StatusCode.OK
        async with asyncio.timeout(20):
            await stopping


CHILD = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from serve_echo import AsyncEcho
from serve_rig import native_server
from meshwright.dataplane.grpc import Limits

async def main():
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(15, stopped.set)
    async with native_server(AsyncEcho(), limits=Limits(busy_poll_seconds=0.01)) as (server, address):
        print(address, flush=True)
        await stopped.wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_a_process_that_polls_ends(how: signal.Signals) -> None:
    """By a signal while calls come: SIGTERM leaves in order."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, str(Path(__file__).parent), stdout=asyncio.subprocess.PIPE, env=os.environ
    )
    assert child.stdout
    address = (await child.stdout.readline()).decode().strip()
    async with native_channel(address) as channel:
        stub = EchoStub(channel)
        answered = 0

        async def call() -> None:
            nonlocal answered
            while True:
                await stub.unary("a", timeout=30)
                answered += 1

        calling = asyncio.create_task(call())
        await until(lambda: answered > 50, 30)
        child.send_signal(how)
        async with asyncio.timeout(20):
            assert await child.wait() == (0 if how is signal.SIGTERM else -how)
        with pytest.raises(grpc.aio.AioRpcError):
            await calling


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/", {"cpu.max": "50000 100000\n"}, True),
        ("0::/", {"cpu.max": "max 100000\n"}, False),
        ("0::/", {}, False),
        ("0::/pods/one", {"pods/cpu.max": "200000 100000\n", "pods/one/cpu.max": "max 100000\n"}, True),
        ("0::/pods/one", {"pods/one/cpu.max": "max 100000\n"}, False),
        ("0::/../other", {"cpu.max": "50000 100000\n"}, True),
        ("3:memory:/a\n2:cpu,cpuacct:/a", {"cpu/a/cpu.cfs_quota_us": "50000\n"}, True),
        ("3:memory:/a\n2:cpu,cpuacct:/a", {"cpu/a/cpu.cfs_quota_us": "-1\n"}, False),
        ("2:cpu,cpuacct:/docker/a", {"cpu/cpu.cfs_quota_us": "50000\n"}, True),
    ],
)
def test_the_default_heeds_a_quota(cgroup: str, files: dict[str, str], expected: bool, tmp_path: Path) -> None:
    """Of both versions of cgroups, of any group above; what a host's file doesn't have is no quota."""
    for path, text in {"proc/self/cgroup": cgroup, **{f"sys/fs/cgroup/{name}": t for name, t in files.items()}}.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert busy_poll.has_quota(tmp_path) is expected
    assert busy_poll.seconds(None, root=tmp_path) == (0 if expected else 100e-6)
    assert busy_poll.seconds(0.001, root=tmp_path) == 0.001


@pytest.mark.parametrize("value", [-1e-6, 0.02, float("nan")])
def test_what_can_not_be_meant_is_refused(value: float) -> None:
    """Seconds where microseconds were meant would keep a core busy."""
    with pytest.raises(ValueError, match="busy_poll_seconds must be 0"):
        Limits(busy_poll_seconds=value)
