"""The live status in the terminal: a table that is redrawn in place, or plain lines when nobody watches."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable

from rich.console import Console
from rich.live import Live
from rich.table import Table

from meshwright.platform.up.part import State, Status
from meshwright.platform.up.supervisor import Supervisor

_REDRAW_SECONDS = 1.0
_STYLES = {
    State.HEALTHY: "green", State.STARTING: "yellow", State.WAITING: "dim", State.UNHEALTHY: "red",
    State.BACKOFF: "red", State.STOPPED: "dim",
}  # fmt: skip


def table(statuses: Iterable[Status]) -> Table:
    """Return the parts as a table."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("part", "pid", "ports", "health", "restarts", "uptime"):
        grid.add_column(column, justify="right" if column in ("pid", "restarts", "uptime") else "left")
    now = time.monotonic()
    for status in statuses:
        health = f"{status.state}: {status.reason}" if status.reason else str(status.state)
        grid.add_row(
            status.name,
            str(status.pid or "-"),
            " ".join(str(port.number) for port in status.ports) or "unix socket",
            f"[{_STYLES[status.state]}]{_escape(health)}[/]",
            str(status.restarts),
            uptime(now - status.since) if status.since else "-",
        )
    return grid


def uptime(seconds: float) -> str:
    """Return a duration in the two units that matter."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


@contextlib.asynccontextmanager
async def showing(supervisor: Supervisor, console: Console) -> AsyncIterator[None]:
    """Show the parts for the length of the context."""
    show = _live if console.is_terminal else _lines
    task = asyncio.create_task(show(supervisor, console), name="display")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _live(supervisor: Supervisor, console: Console) -> None:
    with Live(console=console, auto_refresh=False, transient=True) as live:
        try:
            while True:
                live.update(table(supervisor.statuses()), refresh=True)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_REDRAW_SECONDS), supervisor.changed:
                        await supervisor.changed.wait()
        finally:
            live.update(table(supervisor.statuses()), refresh=True)


async def _lines(supervisor: Supervisor, console: Console) -> None:
    shown: dict[str, tuple[State, str]] = {}
    while True:
        for status in supervisor.statuses():
            now = (status.state, status.reason)
            # Reasons of a start change many times a second; only changes of state are worth a line.
            if shown.get(status.name, (None,))[0] != status.state:
                reason = f": {status.reason}" if status.reason else ""
                pid = f" (process {status.pid})" if status.pid else ""
                console.print(
                    f"{status.name} {status.state}{pid}{reason}", markup=False, highlight=False, soft_wrap=True
                )
            shown[status.name] = now
        async with supervisor.changed:
            await supervisor.changed.wait()
