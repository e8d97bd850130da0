"""Checks: run in order, each printed as it ends with what was measured; results for people and for programs.

One decision to know: a check passes only by returning the measurements it made. It fails by raising, and is skipped by
raising `Skip` with what it would need. Nothing else can print "passed".
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from meshwright.core import errors

Measurements = Mapping[str, Any]


class Failure(errors.MeshwrightError):
    """Something promised wasn't observed; carries what was measured up to then."""

    def __init__(self, message: str, measurements: Measurements | None = None) -> None:
        self.measurements = dict(measurements or {})
        super().__init__(message)


class Skip(errors.MeshwrightError):
    """This machine can't run the check; the message says what it needs."""


@dataclass(frozen=True, slots=True)
class Check:
    """One promise: `run` observes it and returns what it measured."""

    name: str
    promise: str
    run: Callable[[], Awaitable[Measurements]]
    deadline: float = 60.0


async def until(condition: Callable[[], Awaitable[str]], seconds: float, *, look: float = 0.1) -> None:
    """Ask `condition` every `look` seconds until it returns "", else fail with the last thing that it missed."""
    missing = "not looked"
    try:
        async with asyncio.timeout(seconds):
            while missing := await condition():  # noqa: ASYNC110 - what is asked is mostly in another process
                await asyncio.sleep(look)
    except TimeoutError:
        raise Failure(f"not within {seconds:.0f} s: {missing}") from None


@dataclass(frozen=True, slots=True)
class Result:
    """How one check ended."""

    name: str
    result: str  # passed, failed or skipped
    reason: str
    seconds: float
    measurements: Measurements


async def run(check: Check) -> Result:
    """Run one check to its end or its deadline."""
    began = time.monotonic()
    measurements: Measurements = {}
    try:
        async with asyncio.timeout(check.deadline):
            measurements = await check.run()
        result, reason = "passed", ""
    except Skip as skip:
        result, reason = "skipped", str(skip)
    except Failure as failure:
        result, reason, measurements = "failed", str(failure), failure.measurements
    except TimeoutError:
        result, reason = "failed", f"not done within {check.deadline:.0f} s"
    except Exception as error:
        # Whatever went wrong, the other checks still tell something, and this one didn't observe its promise.
        result, reason = "failed", f"{type(error).__name__}: {error}"
    return Result(check.name, result, reason, round(time.monotonic() - began, 2), measurements)


_MARKS = {"passed": "[green]passed[/]", "failed": "[red]failed[/]", "skipped": "[yellow]skipped[/]"}


def show(console: Console, check: Check, result: Result) -> None:
    """Print one result with its measurements."""
    console.print(
        f"{_MARKS[result.result]}  [bold]{check.name}[/]: {check.promise} ({result.seconds:.1f} s)", highlight=False
    )
    if result.reason:
        console.print(f"        {result.reason}", markup=False, highlight=False)
    for name, value in result.measurements.items():
        console.print(f"        {name.replace('_', ' ')}: {_text(value)}", markup=False, highlight=False)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_text, value))
    return str(value)


def summary(results: Sequence[Result]) -> str:
    """Return one line: how many passed, failed and were skipped."""
    counts = {kind: sum(result.result == kind for result in results) for kind in ("passed", "failed", "skipped")}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count or kind == "passed")


def write(path: Path, results: Sequence[Result], **more: Any) -> None:
    """Write the results as JSON: `checks`, and whatever else was measured of the run."""
    path.write_text(json.dumps({"checks": [asdict(result) for result in results], **more}, indent=1) + "\n")
