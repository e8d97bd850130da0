"""Runs `meshwright …` as a person would, in a process of its own, against this run's platform."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from meshwright.core import errors
from meshwright.platform.up.app import Platform

_SECONDS = 20.0


async def run(platform: Platform, *arguments: str, allowed: tuple[int, ...] = (0,)) -> str:
    """Run one command and return what it printed; raise Unavailable with its complaint when it fails."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "meshwright.platform.cli.main", *arguments,
        env={**os.environ, **environment(platform)},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_SECONDS):
            out, complaint = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise errors.DeadlineExceeded(f"meshwright {' '.join(arguments)}: not done in {_SECONDS:.0f} s") from None
    if process.returncode not in allowed:
        raise errors.Unavailable(
            f"meshwright {' '.join(arguments)} ended with status {process.returncode}: "
            f"{(complaint or out).decode(errors='replace').strip()[-800:]}"
        )
    return out.decode()


async def run_json(platform: Platform, *arguments: str, allowed: tuple[int, ...] = (0,)) -> Any:
    """Run one command that prints JSON."""
    return json.loads(await run(platform, *arguments, allowed=allowed))


def environment(platform: Platform) -> Mapping[str, str]:
    """Return the variables that point the command line at this platform."""
    return {
        "MESHWRIGHT_DATA": str(platform.layout.data),
        "MESHWRIGHT_MANAGER": platform.ports.manager.address,
        "MESHWRIGHT_MIXER": platform.ports.mixers[0].address,
    }
