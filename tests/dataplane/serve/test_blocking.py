"""Handlers that block: sync ones in their threads, with an end; async ones are found out and named."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from serve_echo import SERVICE, AsyncEcho, EchoStub, SyncEcho
from serve_rig import native_channel, native_server

from meshwright.dataplane.grpc import Limits, NativeServer, nonblocking

LOGGER = "meshwright.dataplane.grpc"


async def until(condition: Any, seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


class Waits(SyncEcho):
    """Blocks its thread until it is let go, or its caller."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.threads: set[str] = set()
        self.ended: list[str] = []
        self.running = 0

    def unary(self, request: str, context: Any) -> str:
        self.threads.add(threading.current_thread().name)
        if request == "wait":
            self.running += 1
            context.add_callback(lambda: self.ended.append("unary"))
            assert self.go.wait(20)
        return request

    def upload(self, requests: Iterator[str], context: Any) -> str:
        self.running += 1
        try:
            return "+".join(requests)
        except grpc.RpcError:
            self.ended.append("upload")
            raise

    def download(self, request: str, context: Any) -> Iterator[str]:
        self.running += 1
        try:
            while True:
                yield request * 10_000
        finally:
            self.ended.append("download")


async def test_sync_handlers_run_in_threads_and_the_loop_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """As many at a time as there are threads; the log says at the start which methods are sync."""
    caplog.set_level(logging.INFO, LOGGER)
    servicer = Waits()
    async with (
        native_server(servicer, limits=Limits(threads=3)) as (_, address),
        native_channel(address) as channel,
    ):
        said = next(record for record in caplog.records if "sync handlers run in threads" in record.message)
        assert f"/{SERVICE}/Unary" in said.__dict__["methods"]
        stub = EchoStub(channel)
        waiting = [stub.unary("wait", timeout=20) for _ in range(5)]
        await until(lambda: servicer.running == 3)
        servicer.go.set()
        assert await asyncio.gather(*waiting) == ["wait"] * 5
        assert all(name.startswith("grpc-handler-") for name in servicer.threads)
        assert len(servicer.threads) <= 3


async def test_a_caller_that_goes_frees_the_thread() -> None:
    """A sync handler that waits for requests, or for room, is told when its call is over, and its generator closed."""
    servicer = Waits()
    async with (
        native_server(servicer, limits=Limits(threads=1)) as (_, address),
        native_channel(address) as channel,
    ):
        stub = EchoStub(channel)
        upload = stub.upload(timeout=20)
        await upload.write("a")
        await until(lambda: servicer.running == 1)
        upload.cancel()
        await until(lambda: "upload" in servicer.ended)
        download = stub.download("x", timeout=20)
        await download.read()
        download.cancel()
        await until(lambda: "download" in servicer.ended)
        servicer.go.set()
        assert await stub.unary("free", timeout=10) == "free"


async def test_a_sync_handlers_callback_hears_of_a_caller_that_goes() -> None:
    """The callback comes at once, not when the handler returns."""
    servicer = Waits()
    async with native_server(servicer) as (_, address), native_channel(address) as channel:
        call = EchoStub(channel).unary("wait", timeout=20)
        await until(lambda: servicer.running == 1)
        call.cancel()
        await until(lambda: servicer.ended == ["unary"])
        servicer.go.set()


class Inline(SyncEcho):
    def __init__(self) -> None:
        self.threads: set[str] = set()

    @nonblocking
    def unary(self, request: str, context: Any) -> str:
        self.threads.add(threading.current_thread().name)
        return super().unary(request, context)  # type: ignore[no-any-return]


async def test_a_nonblocking_handler_runs_on_the_loop() -> None:
    """With all that a sync handler may do: answer, abort, fail."""
    servicer = Inline()
    async with native_server(servicer) as (_, address), grpc.aio.insecure_channel(address) as channel:
        stub = EchoStub(channel)
        assert await stub.unary("hello", timeout=10) == "hello"
        for request, code in (("abort NOT_FOUND", grpc.StatusCode.NOT_FOUND), ("fail", grpc.StatusCode.UNKNOWN)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.unary(request, timeout=10)
            assert caught.value.code() is code
        assert servicer.threads == {threading.current_thread().name}


def test_a_stream_cant_be_nonblocking() -> None:
    """It would keep the loop for as long as it has responses."""

    @nonblocking
    def download(request: bytes, context: Any) -> Iterator[bytes]:
        yield request

    handlers = {"Download": grpc.unary_stream_rpc_method_handler(download)}
    server = NativeServer("127.0.0.1:0", None)
    with pytest.raises(TypeError, match="nonblocking"):
        server.add_registered_method_handlers("a.B", handlers)


class Blocks(AsyncEcho):
    """Blocks the event loop, or keeps it busy in many short turns."""

    async def unary(self, request: str, context: Any) -> str:
        if request == "block":
            time.sleep(0.5)  # what is to be found out
        elif request == "compute":
            end = time.monotonic() + 0.5
            while time.monotonic() < end:
                sum(range(1000))
        elif request == "turns":
            end = time.monotonic() + 0.5
            while time.monotonic() < end:
                await asyncio.sleep(0)
        return request


@pytest.mark.parametrize("request_text", ["block", "compute"])
async def test_a_handler_that_blocks_the_loop_is_named(caplog: pytest.LogCaptureFixture, request_text: str) -> None:
    """Once a minute, with its place, whether it sleeps or computes."""
    async with native_server(Blocks()) as (_, address), native_channel(address) as channel:
        stub = EchoStub(channel)
        for _ in range(2):
            assert await stub.unary(request_text, timeout=10) == request_text
        warnings = [record for record in caplog.records if record.name == LOGGER and "blocks" in record.message]
        [warning] = warnings
        assert warning.__dict__["method"] == f"/{SERVICE}/Unary"
        assert Path(__file__).name in warning.__dict__["at"]
        assert 0.07 <= warning.__dict__["seconds"] < 0.5


async def test_a_busy_loop_isnt_a_blocked_one(caplog: pytest.LogCaptureFixture) -> None:
    """Handlers that let the others have their turns aren't warned about, nor are they when the watch is off."""
    async with native_server(Blocks()) as (_, address), native_channel(address) as channel:
        assert await EchoStub(channel).unary("turns", timeout=10) == "turns"
    async with native_server(Blocks(), stall_seconds=0) as (_, address), native_channel(address) as channel:
        assert await EchoStub(channel).unary("block", timeout=10) == "block"
    assert not [record for record in caplog.records if "blocks" in record.message]
