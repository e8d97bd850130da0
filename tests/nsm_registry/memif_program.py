"""DPDK's `testpmd` as a memif program of another make: it answers pings, or sends without end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

PROGRAM = "dpdk-testpmd"
IS_HERE = shutil.which(PROGRAM) is not None


@contextlib.asynccontextmanager
async def running(role: str, socket: str | Path, mode: str, log: Path) -> AsyncIterator[None]:
    """Run testpmd with one `net_memif` port; the server's socket is there when the context begins."""
    core = min(os.sched_getaffinity(0))
    with open(log, "wb") as output:
        process = await asyncio.create_subprocess_exec(
            PROGRAM, f"--lcores=0@{core},1@{core}", "--no-huge", "-m", "128", "--no-pci", "--no-telemetry",
            "--no-shconf", f"--file-prefix=meshwright-test-{os.getpid()}-{role}",
            f"--vdev=net_memif0,role={role},socket={socket},socket-abstract=no", "--",
            "--total-num-mbufs=4096", f"--forward-mode={mode}", "--auto-start",
            stdin=asyncio.subprocess.PIPE, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            while role == "server" and not Path(socket).exists():
                assert process.returncode is None, log.read_text()
                await asyncio.sleep(0.05)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
