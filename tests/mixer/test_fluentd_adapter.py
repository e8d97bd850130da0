"""Adapter fluentd against a server of the forward protocol: nothing counts as taken that wasn't acknowledged."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Self

import msgpack
import pytest

from meshwright.mixer.adapters.fluentd import ADAPTER
from meshwright.mixer.adapters.fluentd.forward import chunks, packed
from meshwright.mixer.plugintest import log_entry, running


class ForwardServer:
    """Takes PackedForward messages; `answer` makes the acknowledgement, None sends none."""

    def __init__(self, answer: Any = lambda chunk: {"ack": chunk}) -> None:
        self.answer, self.address = answer, ""
        self.events: list[tuple[str, float, dict[str, Any]]] = []
        self.connections = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        unpacker = msgpack.Unpacker()
        try:
            while data := await reader.read(65536):
                unpacker.feed(data)
                for tag, events, option in unpacker:
                    found = msgpack.Unpacker()
                    found.feed(events)
                    for time, record in found:
                        assert time.code == 0
                        seconds, nanos = int.from_bytes(time.data[:4], "big"), int.from_bytes(time.data[4:], "big")
                        self.events.append((tag, seconds + nanos / 1e9, record))
                    answer = self.answer(option["chunk"])
                    if answer is None:
                        writer.close()
                        return
                    writer.write(msgpack.packb(answer))
        finally:
            writer.close()


async def test_entries_arrive_by_tag_with_their_moment() -> None:
    async with ForwardServer() as server:
        parameters = {"address": server.address, "integerDuration": True}
        async with running(ADAPTER, parameters) as handler:
            entry = log_entry(
                {"path": "/", "took": timedelta(milliseconds=7), "from": ip_address("10.0.0.1"), "ok": True},
                instance="access.shop",
                record_id="ab",
                redelivered=True,
                trace_id="0af7651916cd43dd8448eb211c80319c",
                time=datetime(2026, 11, 21, 12, 0, 0, 500_000, tzinfo=UTC),
            )
            await handler.report([entry, log_entry({"n": 1})])
            await handler.report([log_entry({"n": 2})])
        assert [(tag, record.get("n")) for tag, _, record in server.events] == [
            ("access.shop", None),
            ("log.default", 1),
            ("log.default", 2),
        ]
        _, moment, record = server.events[0]
        assert moment == datetime(2026, 11, 21, 12, 0, 0, 500_000, tzinfo=UTC).timestamp()
        assert record == {
            "path": "/",
            "took": 7,
            "from": "10.0.0.1",
            "ok": True,
            "severity": "info",
            "trace_id": "0af7651916cd43dd8448eb211c80319c",
            "meshwright.record.id": "ab",
            "meshwright.redelivered": True,
        }
        assert server.connections == 1


@pytest.mark.parametrize("answer", [lambda _: {"ack": "another"}, lambda _: None, lambda _: [1], lambda _: "x" * 9000])
async def test_a_chunk_that_is_not_acknowledged_is_not_taken(answer: Any) -> None:
    async with ForwardServer(answer) as server, running(ADAPTER, {"address": server.address}) as handler:
        with pytest.raises(OSError):
            await handler.report([log_entry({})])
        server.answer = lambda chunk: {"ack": chunk}
        await handler.report([log_entry({})])  # on a connection of its own: nothing of the first is left
        assert server.connections == 2


async def test_a_silent_server_is_waited_for_until_the_deadline() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    parameters = {"address": address, "pushTimeoutDuration": "100ms"}
    async with server, running(ADAPTER, parameters) as handler:
        with pytest.raises(TimeoutError):
            await handler.report([log_entry({})])


def test_chunks_keep_to_their_size() -> None:
    events = [(datetime.now(UTC), {"n": number}) for number in range(100)]
    made = [*chunks(events, 200)]
    assert sum(count for count, _ in made) == 100
    assert all(len(chunk) <= 200 for _, chunk in made)
    assert b"".join(chunk for _, chunk in made) == b"".join(map(packed, events))
