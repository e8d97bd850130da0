"""How every process of ours runs: one event loop, one stop event, named exit codes, one line for a failure.

SIGTERM and SIGINT set the stop event; `main` returns when it is set. A second signal ends the process at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable

from meshwright.core import errors

# sysexits.h, the names that operators know.
EX_OK = 0
EX_USAGE = 64
EX_UNAVAILABLE = 69
EX_SOFTWARE = 70
EX_CONFIG = 78


def run(name: str, main: Callable[[asyncio.Event], Awaitable[None]]) -> int:
    """Run `main(stop)` to its end and return the exit code."""
    try:
        asyncio.run(_run(main))
    except (errors.MeshwrightError, BaseExceptionGroup) as error:
        expected = [leaf for leaf in _leaves(error) if isinstance(leaf, errors.MeshwrightError)]
        if len(expected) < len(_leaves(error)):
            raise
        for leaf in expected:
            print(f"{name}: {leaf}", file=sys.stderr)
        return max(map(_status, expected))
    return EX_OK


async def _run(main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(EX_SOFTWARE)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    await main(stop)


def _status(error: errors.MeshwrightError) -> int:
    match error:
        case errors.ConfigError():
            return EX_CONFIG
        case errors.Unavailable():
            return EX_UNAVAILABLE
    return EX_SOFTWARE


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
