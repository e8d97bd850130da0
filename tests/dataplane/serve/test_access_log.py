"""The access log: a record for each call that its rules choose, without anything that was said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
import structlog
from serve_echo import AsyncEcho, EchoStub
from serve_rig import CLIENT_ID, native_channel, native_server

from meshwright.core import access_rules, errors
from meshwright.core.grpc.access_log import Writer
from meshwright.core.identity import StaticIdentity
from meshwright.dataplane.grpc import NativeServer
from meshwright.dataplane.telemetry import AccessRecord

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


async def records(server: NativeServer, count: int) -> list[AccessRecord]:
    """Wait for `count` records; one is made just after its caller has its answer."""
    found: list[AccessRecord] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            found += server.access_records(100)
            await asyncio.sleep(0.01)
    return found


async def test_a_record_tells_who_called_what_and_how_it_ended(
    echo: AsyncEcho, server_identity: StaticIdentity, client_identity: StaticIdentity
) -> None:
    async with (
        native_server(echo, identity=server_identity, access_log={"": "all"}) as (server, address),
        native_channel(address, client_identity) as channel,
    ):
        stub = EchoStub(channel)
        metadata = (("traceparent", f"00-{TRACE}-00f067aa0ba902b7-00"), ("authorization", "secret"))
        await stub.unary("hello", timeout=10, metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.unary("abort NOT_FOUND", timeout=10)
        async for _ in stub.chat(iter(["a", "b", "c"]), timeout=10):
            pass
        unary, missing, stream = await records(server, 3)
    assert (unary.path, unary.status) == ("/meshwright.test.Echo/Unary", "OK")
    assert (unary.principal, unary.address.split(":")[:2]) == (CLIENT_ID, ["ipv4", "127.0.0.1"])
    assert (unary.request_messages, unary.response_messages) == (1, 1)
    assert 0 < unary.request_bytes < 100
    assert 0 < unary.response_bytes < 100
    assert 0 < unary.seconds < 10
    assert unary.trace is not None
    assert unary.trace[0] == TRACE
    assert (missing.status, missing.response_messages, missing.trace) == ("NOT_FOUND", 0, None)
    assert (stream.request_messages, stream.response_messages) == (3, 3)
    assert "secret" not in "".join(str(getattr(unary, name)) for name in dir(unary) if name[0] != "_")


async def test_only_trouble_is_recorded_unless_a_rule_says_otherwise(echo: AsyncEcho) -> None:
    rules = {"": "failed", "/meshwright.test.Echo/Server": "off"}
    async with native_server(echo, access_log=rules) as (server, address), native_channel(address) as channel:
        stub = EchoStub(channel)
        await stub.unary("hello", timeout=10)
        for refused in ("abort NOT_FOUND", "abort INVALID_ARGUMENT", "abort UNAVAILABLE", "abort PERMISSION_DENIED"):
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.unary(refused, timeout=10)
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary("/made.Up/" + "x" * 1000)(b"", timeout=10)
        found = await records(server, 3)
    assert [record.status for record in found] == ["UNAVAILABLE", "PERMISSION_DENIED", "UNIMPLEMENTED"]
    assert len(found[2].path) == 201


async def test_by_default_nothing_is_kept(echo: AsyncEcho) -> None:
    async with native_server(echo) as (server, address), native_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await EchoStub(channel).unary("abort UNAVAILABLE", timeout=10)
        assert server.access_records(10) == []
    with pytest.raises(ValueError, match="access_log: .some. is none of"):
        await NativeServer("127.0.0.1:0", None, access_log={"": "some"}).start()


@pytest.fixture
def every_level() -> Iterator[None]:
    """Log lines of all levels, whatever the service of an earlier test was told to write."""
    before = structlog.get_config()
    structlog.reset_defaults()
    yield
    structlog.configure(**before)


@pytest.mark.usefixtures("every_level")
async def test_lines_are_written_until_the_end(echo: AsyncEcho) -> None:
    with structlog.testing.capture_logs() as lines:
        async with native_server(echo, access_log={"": "all"}) as (server, address), native_channel(address) as channel:
            writer = Writer(server)
            writer.start()
            for _ in range(100):
                await EchoStub(channel).unary("hello", timeout=10)
            with pytest.raises(grpc.aio.AioRpcError):
                await EchoStub(channel).unary("abort UNAVAILABLE", timeout=10)
            await _until(lambda: len(lines) > 0)
            await channel.close()
            await server.stop(0)
            await writer.stop()
    calls = [line for line in lines if line["event"] == "call"]
    assert len(calls) == 101
    assert calls[0]["method"] == "meshwright.test.Echo/Unary"
    assert {(line["status"], line["log_level"]) for line in calls} == {("OK", "info"), ("UNAVAILABLE", "warning")}


async def test_a_flood_costs_lines_and_says_so() -> None:
    class Flood:
        """More records than anybody writes."""

        def access_records(self, most: int) -> list[Any]:
            return []

        def stats(self) -> dict[str, int]:
            return {"access_records_dropped": 7}

    with structlog.testing.capture_logs() as lines:
        writer = Writer(Flood())
        writer.start()
        await writer.stop()
    assert lines == [{"event": "access records dropped", "count": 7, "log_level": "warning"}]


async def _until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not happened():
            await asyncio.sleep(0.01)


def test_rules_are_read_from_a_text() -> None:
    assert access_rules.parse("failed, /a.B/=all,/a.B/C=off") == {"": "failed", "/a.B/": "all", "/a.B/C": "off"}
    assert access_rules.parse("") == {}
    for wrong in ("some", "a.B/=all", "failed,off", "/a.B/"):
        with pytest.raises(errors.ConfigError, match="access_log"):
            access_rules.parse(wrong)
