"""The process that connected, held by a descriptor for as long as its call lasts."""

from __future__ import annotations

import asyncio
import gc
import os
import re
from pathlib import Path
from typing import Any

import grpc
import pytest
from serve_echo import AsyncEcho, EchoStub, SyncEcho
from serve_rig import code_of, native_channel, native_server, until


def held_pid(descriptor: int | str) -> int | None:
    """The number of the process that a descriptor holds; None when it holds none."""
    try:
        told = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
    except FileNotFoundError:  # closed meanwhile
        return None
    found = re.search(r"^Pid:\t(-?\d+)$", told, re.MULTILINE)
    return None if found is None else int(found[1])


def held() -> int:
    """How often this process, which is the caller of all calls here, is held."""
    gc.collect()  # a call's objects may be part of a cycle
    return sum(held_pid(descriptor) == os.getpid() for descriptor in os.listdir("/proc/self/fd"))


class Held(AsyncEcho):
    """Says which process is held."""

    async def unary(self, request: str, context: Any) -> str:
        assert context.peer_pidfd() == context.peer_pidfd()
        return str(held_pid(context.peer_pidfd()))


class HeldSync(SyncEcho):
    def unary(self, request: str, context: Any) -> str:
        return str(held_pid(context.peer_pidfd()))


@pytest.mark.parametrize("servicer", [Held(), HeldSync()])
async def test_the_caller_is_held_during_its_call(servicer: Any, tmp_path: Path) -> None:
    """The descriptor is the very process', and closed with the call."""
    before = held()
    async with native_server(servicer, f"unix:{tmp_path}/a.sock") as (server, address):
        async with native_channel(address) as channel:
            for _ in range(20):
                assert await EchoStub(channel).unary("", timeout=10) == str(os.getpid())
            await until(lambda: held() == before + 1)  # the connection's own
        await until(lambda: server.stats()["connections_open"] == 0)
        await until(lambda: held() == before)


async def test_a_cancelled_call_lets_go_of_its_caller(tmp_path: Path) -> None:
    """Also when the handler never returns."""

    class Waiting(AsyncEcho):
        async def unary(self, request: str, context: Any) -> str:
            context.peer_pidfd()
            return await super().unary(request, context)

    servicer = Waiting()
    before = held()
    async with (
        native_server(servicer, f"unix:{tmp_path}/a.sock") as (_, address),
        native_channel(address) as channel,
    ):
        call = EchoStub(channel).unary("wait", timeout=10)
        await asyncio.wait_for(servicer.started.wait(), 10)
        assert held() == before + 2
        call.cancel()
        await until(lambda: held() == before + 1)


async def test_tcp_tells_of_no_process() -> None:
    """The error says where there is one."""
    async with native_server(Held()) as (_, address), native_channel(address) as channel:
        code, details = await code_of(EchoStub(channel).unary("", timeout=10))
    assert code is grpc.StatusCode.UNKNOWN
    assert "only Unix sockets tell which process connected" in details
