"""`meshwright up`: run until a signal, show what runs; `--status` shows the parts of the `up` that runs already."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from meshwright.core import process
from meshwright.platform.dashboard import app as dashboard
from meshwright.platform.up import display, state
from meshwright.platform.up.app import Start
from meshwright.platform.up.layout import Layout
from meshwright.platform.up.settings import UpSettings


def run(settings: UpSettings) -> int:
    """Run the platform until SIGINT or SIGTERM; return the exit status."""
    return process.run("meshwright up", lambda stop: _main(settings, stop))


async def _main(settings: UpSettings, stop: asyncio.Event) -> None:
    console = Console(soft_wrap=not sys.stdout.isatty())
    start = Start(settings)
    running = asyncio.create_task(_run(start, console, stop), name="up")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not running.done():
        console.print("stopping all parts", highlight=False)
        running.cancel()
    try:
        await running
    except asyncio.CancelledError:
        console.print("stopped", highlight=False)


async def _run(start: Start, console: Console, stop: asyncio.Event) -> None:
    async with (
        display.showing(start.supervisor, console),
        start.run() as platform,
        dashboard.serving(platform) as address,
    ):
        console.print(start.summary(), highlight=False)
        console.print(f"dashboard: {address} (opens once)", markup=False, highlight=False, soft_wrap=True)
        console.print(f"to use it: MESHWRIGHT_DATA={platform.layout.data} meshwright apply -f FILE", highlight=False)
        console.print(f"logs: {platform.layout.logs}; stop with Ctrl-C", highlight=False)
        await asyncio.Event().wait()  # until cancelled by a signal


def status(data: Path) -> int:
    """Print what the running `up` last said of its parts; 0 when all are healthy, 1 when not, 69 when none runs."""
    console = Console(soft_wrap=not sys.stdout.isatty())
    content = state.read(Layout(data.expanduser().absolute()))
    if content is None:
        console.print(f"no `meshwright up` runs on {data}", highlight=False)
        return process.EX_UNAVAILABLE
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("part", "pid", "ports", "health", "restarts", "uptime"):
        grid.add_column(column)
    for part in content["parts"]:
        grid.add_row(
            part["name"],
            str(part["pid"] or "-"),
            " ".join(map(str, part["ports"].values())) or "unix socket",
            f"{part['state']}: {part['reason']}" if part["reason"] else part["state"],
            str(part["restarts"]),
            display.uptime(part["uptime_seconds"]) if part["uptime_seconds"] is not None else "-",
        )
    console.print(f"`meshwright up` is process {content['pid']}", highlight=False)
    console.print(grid)
    return process.EX_OK if content["healthy"] else 1
