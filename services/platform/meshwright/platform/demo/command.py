"""`meshwright demo`: runs the demo in a data directory, a temporary one by default, and gives the exit status."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from meshwright.core import process
from meshwright.platform.demo import app
from meshwright.platform.demo.harness import Result
from meshwright.platform.demo.settings import DemoSettings


def run(settings: DemoSettings, *, keep: bool) -> int:
    """Run the demo; a temporary data directory (`keep` false) is removed unless something failed."""
    results: list[Result] = []
    console = Console(soft_wrap=not sys.stdout.isatty())

    async def main(stop: asyncio.Event) -> None:
        demo = asyncio.create_task(app.run(settings, console, stop), name="demo")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        await asyncio.wait({demo, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not demo.done() and settings.once:
            demo.cancel()
        try:
            results.extend(await demo)
        except asyncio.CancelledError:
            console.print("stopped before the end")

    status = process.run("meshwright demo", main)
    failed = status or not results or any(result.result == "failed" for result in results)
    if keep:
        return status or int(bool(failed))
    if failed:
        console.print(f"logs are kept in {settings.data / 'logs'}", highlight=False)
    else:
        shutil.rmtree(settings.data, ignore_errors=True)
    return status or int(bool(failed))


def temporary() -> Path:
    """Return a new data directory with a path short enough for Unix sockets."""
    return Path(tempfile.mkdtemp(prefix="meshwright-"))
