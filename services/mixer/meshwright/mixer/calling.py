"""One conversation of a command with mixer, in the caller's identity; a failure ends the process with its reason.

One decision to know: what commands need of gRPC is imported when they call, so that `--help` and bad arguments are
answered at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from meshwright.mixer import arguments

REFUSED, UNAVAILABLE = 1, 69
"""Statuses of a command that mixer refused, and of one that it didn't answer."""

T = TypeVar("T")


def call(command: str, address: str, folder: Path | None, ask: Callable[[Any], Awaitable[T]]) -> T:
    """What `ask` makes of a channel to mixer, which is closed then; plain text without an identity's folder."""
    return asyncio.run(_call(command, address, folder, ask))


async def _call(command: str, address: str, folder: Path | None, ask: Callable[[Any], Awaitable[T]]) -> T:
    import grpc

    from meshwright.core import errors
    from meshwright.core.grpc import Channel
    from meshwright.core.identity import FileIdentity, part_id

    try:
        source = FileIdentity(folder) if folder else None
        peer = part_id(source.current().trust_domain, "mixer") if source else None
        async with Channel(address, source, peer=peer) as channel:
            return await ask(channel)
    except errors.ConfigError as error:
        arguments.fail(arguments.USAGE, str(error), command)
    except grpc.aio.AioRpcError as error:
        away = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        remedy = f" (is mixer running at {address}?)" if away else ""
        arguments.fail(UNAVAILABLE if away else REFUSED, f"{error.code().name}: {error.details()}{remedy}", command)


def code_name(code: int) -> str:
    """A google.rpc.Code by its name."""
    import grpc

    names: dict[int, str] = {each.value[0]: each.name for each in grpc.StatusCode}
    return names.get(code, str(code))
