"""Network namespaces for the demo: each is held open by a process in it (enclave.py) that looks around inside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from meshwright.core import errors
from meshwright.platform.demo import enclave

_SECONDS = 10.0


class Enclave:
    """One network namespace and the process in it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def open(self) -> int:
        """Return a descriptor of the namespace; the caller closes it."""
        return os.open(f"/proc/{self._process.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    async def interfaces(self) -> list[str]:
        """Return the names of the interfaces in the namespace."""
        names: list[str] = (await self._ask(do="interfaces"))["interfaces"]
        return names

    async def ping(self, address: str) -> list[float]:
        """Ping five times from inside; return the round trips in milliseconds."""
        times: list[float] = (await self._ask(do="ping", address=address))["milliseconds"]
        return times

    async def _ask(self, **order: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        return await _line(self._process)


@contextlib.asynccontextmanager
async def made(rights: int) -> AsyncIterator[Enclave]:
    """Make a namespace over which process `rights` has rights; it is gone when the context ends.

    Raises Unavailable when this machine doesn't let this user make one; the message is the kernel's.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", str(Path(enclave.__file__)), str(rights),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        await _line(process)
        yield Enclave(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _line(process: asyncio.subprocess.Process) -> Any:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_SECONDS):
            line = await process.stdout.readline()
    except TimeoutError:
        raise errors.DeadlineExceeded("the process in the network namespace doesn't answer") from None
    if not line:
        raise errors.Unavailable("the process in the network namespace ended")
    answer = json.loads(line)
    if "error" in answer:
        raise errors.Unavailable(answer["error"])
    return answer
