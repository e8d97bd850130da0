"""core.process: signals stop a process cleanly, failures are one line and a named status."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from meshwright.core import errors, process


def test_a_signal_sets_the_stop_event() -> None:
    async def main(stop: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(stop.wait(), 5)

    assert process.run("x", main) == process.EX_OK


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.ConfigError("no", field="a.b", remedy="yes"), process.EX_CONFIG),
        (errors.Unavailable("etcd is away"), process.EX_UNAVAILABLE),
        (errors.Conflict("twice"), process.EX_SOFTWARE),
    ],
)
def test_expected_failures_are_one_line(
    error: errors.MeshwrightError, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async def main(stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())

    async def fail() -> None:
        raise error

    assert process.run("x", main) == status
    assert capsys.readouterr().err == f"x: {error}\n"


def test_bugs_keep_their_traceback() -> None:
    async def main(stop: asyncio.Event) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        process.run("x", main)
