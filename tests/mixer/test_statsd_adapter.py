"""Adapters statsd and dogstatsd on a real UDP socket: the lines of the StatsD protocol and Datadog's extension."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from meshwright.mixer.adapters.statsd import DOGSTATSD, STATSD
from meshwright.mixer.adapters.statsd.lines import datagrams
from meshwright.mixer.adapters.statsd.name_template import NameTemplate
from meshwright.mixer.plugintest import metric, running


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(5)
        yield listening


async def received(server: socket.socket) -> list[str]:
    return (await asyncio.to_thread(server.recv, 65536)).decode().split("\n")


def address(server: socket.socket) -> str:
    return f"127.0.0.1:{server.getsockname()[1]}"


async def test_statsd_writes_counters_gauges_and_timings(server: socket.socket) -> None:
    metrics = {
        "hits": {"type": "COUNTER", "nameTemplate": 'hits.{{.to}}.{{index . "response.code"}}'},
        "level.default": {"type": "GAUGE"},
        "time": {"type": "DISTRIBUTION"},
    }
    async with running(STATSD, {"address": address(server), "prefix": "mesh.", "metrics": metrics}) as handler:
        await handler.report(
            [
                metric(3, {"to": "cart:8080", "response.code": 200}, instance="hits.default"),
                metric(-2, {}, instance="level.default"),
                metric(timedelta(milliseconds=12.5), {}, instance="time.default"),
                metric(1, {"to": "x"}, instance="other.default"),
            ]
        )
        assert await received(server) == [
            "mesh.hits.cart_8080.200:3|c",
            "mesh.level:0|g",
            "mesh.level:-2|g",
            "mesh.time:12.5|ms",
            "mesh.other:1|c",
        ]


async def test_a_sampled_counter_says_so(server: socket.socket) -> None:
    parameters = {"address": address(server), "samplingRate": 0.5, "flushBytes": 65507}
    async with running(STATSD, parameters) as handler:
        await handler.report([metric(1, {}, instance="n.default") for _ in range(1000)])
        lines = await received(server)
        assert 350 < len(lines) < 650
        assert set(lines) == {"n:1|c|@0.5"}


async def test_dogstatsd_turns_dimensions_into_tags(server: socket.socket) -> None:
    parameters = {
        "address": address(server),
        "globalTags": {"cluster": "one"},
        "metrics": {"time": {"name": "request.duration", "type": "DISTRIBUTION", "tags": {"unit": "ms"}}},
    }
    async with running(DOGSTATSD, parameters) as handler:
        await handler.report(
            [
                metric(2.5, {"path": "/a,b|c#d", "ok": True}, instance="time.default"),
                metric(timedelta(seconds=1), {}, instance="time.default"),
            ]
        )
        assert await received(server) == [
            "request.duration:2.5|h|#cluster:one,ok:true,path:/a_b_c_d,unit:ms",
            "request.duration:1000|ms|#cluster:one,unit:ms",
        ]


async def test_a_server_that_is_away_fails_nothing(server: socket.socket) -> None:
    """UDP can't acknowledge: a batch that came again would be counted twice by a server that was there."""
    where = address(server)
    server.close()
    async with running(STATSD, {"address": where}) as handler:
        for _ in range(3):
            await handler.report([metric(1, {}, instance="n.default")])


@pytest.mark.parametrize(
    "parameters",
    [
        {"address": "localhost"},
        {"address": "localhost:0"},
        {"samplingRate": 0},
        {"flushBytes": 1},
        {"metrics": {"a": {"nameTemplate": "{{.a"}}},
        {"metrics": {"a": {"nameTemplate": "{{if .a}}x{{end}}"}}},
        {"metrics": {"a": {"type": "SET"}}},
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        STATSD.parameters.model_validate(parameters)


@given(
    st.lists(st.text(alphabet=st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1)),
    st.integers(64, 200),
)
def test_datagrams_lose_nothing_and_keep_to_their_size(lines: list[str], size: int) -> None:
    made = [*datagrams(lines, size)]
    assert [line for datagram in made for line in datagram.decode().split("\n")] == lines
    assert all(len(datagram) <= size or b"\n" not in datagram for datagram in made)


@given(st.text())
def test_any_text_is_a_template_or_refused(source: str) -> None:
    try:
        filled = NameTemplate(source).fill({"a": "x y"})
    except ValueError:
        return
    assert not {":", "|", "@", "\n", " "} & set(filled)
