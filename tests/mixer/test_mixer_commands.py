"""`meshwright mixer check|quota|report`, as `mixc` was used: once, and many times at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from check_servers import Server
from rule_documents import denial, quota
from typer.testing import CliRunner

from meshwright.core.clock import ManualClock
from meshwright.mixer import repetition
from meshwright.mixer.cli import app


class Command:
    """Runs the command against a server of this test."""

    def __init__(self, server: Server, target: str) -> None:
        self.server, self._target = server, target

    async def __call__(self, *arguments: str, status: int = 0) -> str:
        given = [*arguments, "--address", self._target, "--insecure-loopback"]
        result = await asyncio.to_thread(CliRunner().invoke, app, given)
        assert result.exit_code == status, (result.stdout, result.stderr, result.exception)
        return result.stdout or result.stderr


@pytest.fixture
async def command(tmp_path: Path) -> AsyncIterator[Command]:
    server = Server([*denial(), *quota(20, "60s")])
    async with server.served(tmp_path) as target:
        yield Command(server, target)


async def test_quota_prints_what_each_got(command: Command) -> None:
    text = await command("quota", "requestcount=15", "other", "-s", "destination.service.name=a")
    assert "QUOTA" in text
    assert [line.split()[:3] for line in text.splitlines() if line.startswith(("requestcount", "other"))] == [
        ["other", "1", "1"],
        ["requestcount", "15", "15"],
    ]
    refused = json.loads(
        await command("quota", "requestcount=6", "-s", "destination.service.name=a", "--json", status=1)
    )
    assert refused["quotas"]["requestcount"]["granted"] == 0
    rest = json.loads(
        await command("quota", "requestcount=9", "-s", "destination.service.name=a", "--best-effort", "--json")
    )
    assert rest["quotas"]["requestcount"]["granted"] == 5


async def test_checks_repeat_at_once(command: Command) -> None:
    """The quota's twenty are granted, the rest refuses; every typed attribute arrives."""
    typed = (
        "-s", "a=1", "-i", "b=1", "-d", "c=1", "-b", "d=true", "-t", "e=2026-01-01T00:00:00Z", "--bytes", "f=aGk=",
        "--duration", "g=1.5s", "--string-map", "h=k:v", "-a", "source.ip=10.0.0.1",
    )  # fmt: skip
    answer: Any = json.loads(
        await command("check", *typed, "-q", "requestcount=1", "-r", "30", "-c", "8", "--json", status=1)
    )
    assert answer["repeated"]["calls"] == 30
    assert answer["codes"] == {"OK": 30}
    assert answer["granted"] == {"requestcount": 20}
    assert len({request.deduplication_id for request in command.server.checks}) == 30
    attributes = command.server.checks[0].attributes
    words = attributes.words
    assert {words[-index - 1] for index in attributes.strings} == {"a"}
    assert (len(attributes.int64s), len(attributes.doubles), len(attributes.bools)) == (1, 1, 1)
    assert (len(attributes.timestamps), len(attributes.durations), len(attributes.string_maps)) == (1, 1, 1)
    assert sorted(attributes.bytes.values()) == [bytes([10, 0, 0, 1]), b"hi"]


async def test_reports_go_in_batches(command: Command) -> None:
    text = await command("report", "-a", "request.path=/", "-r", "4", "-c", "2", "--report-batch-size", "25")
    assert "100 records" in text
    assert [len(report.attributes) for report in command.server.reports] == 4 * [25]


async def test_wrong_arguments_and_absent_servers_are_told(command: Command) -> None:
    assert "isn't name=amount" in await command("quota", "requestcount=many", status=64)
    assert "isn't name=value" in await command("report", "-a", "novalue", status=64)
    command._target += "-not"
    assert "is mixer running" in await command("check", "-r", "3", "-c", "3", "--timeout", "0.5", status=69)


async def test_a_rate_is_kept() -> None:
    """Call n begins n / rate seconds after the first, however many callers there are."""
    clock, began = ManualClock(), []

    async def call() -> None:
        began.append(clock.monotonic())

    task = asyncio.create_task(repetition.repeat(call, times=5, concurrency=3, rate=2, clock=clock))
    while not began:
        await asyncio.sleep(0)
    for _ in range(10):
        await clock.advance(0.5)
    outcome = await task
    assert began == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert outcome.describe()["calls_per_second"] == 2.5
