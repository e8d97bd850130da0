"""One part's process: started, ended within a deadline, collected with all it left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from meshwright.platform.up import exec as starter
from meshwright.platform.up import logfile
from meshwright.platform.up.part import Part, State, Status

FIRST_BACKOFF, LONGEST_BACKOFF = 0.2, 10.0
STEADY_SECONDS = 20.0  # a process that lived this long starts its back-off anew


class Running:
    """A part's process with its state, its log and its back-off. Only the supervisor's task for the part changes it."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.state, self.reason = State.WAITING, ""
        self.process: asyncio.subprocess.Process | None = None
        self.started: float | None = None
        self.restarts, self.backoff = 0, 0.0
        self.proved = False  # was healthy once
        self.ending = "ended"
        self.paused, self.wake = False, asyncio.Event()
        self._copy: asyncio.Task[None] | None = None
        self._log: logfile.LogFile | None = None

    @property
    def pid(self) -> int | None:
        """The process id while there is a process."""
        return self.process.pid if self.process else None

    def set(self, state: State, reason: str = "") -> None:
        """Note where the part stands."""
        self.proved = self.proved or state is State.HEALTHY
        self.state, self.reason = state, reason

    def status(self) -> Status:
        """The part as it stands."""
        return Status(
            self.part.name, self.state, self.reason, self.pid, self.part.ports, self.part.sockets, self.restarts,
            self.started if self.process else None, self.part.optional,
        )  # fmt: skip

    async def spawn(self, log: Path, cwd: Path) -> None:
        """Start the process, in a group of its own and with its output going to `log`."""
        argv = [sys.executable, "-I", "-S", starter.__file__, str(os.getpid()), *self.part.argv]
        self.process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=cwd,
            env={**os.environ, **self.part.environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            process_group=0,  # Ctrl-C in the terminal is for `up`, which stops the parts in their order
        )
        assert self.process.stdout is not None
        self._log = logfile.LogFile(log)
        self._copy = asyncio.create_task(logfile.copy(self.process.stdout, self._log), name=f"log {self.part.name}")
        self.started = time.monotonic()
        self.set(State.STARTING)

    async def terminate(self) -> None:
        """Ask the process to end, and kill its group after the deadline."""
        if self.process is None:
            return
        process = self.process
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(self.part.stop_seconds):
                await process.wait()
        except TimeoutError:
            self.ending = f"didn't end within {self.part.stop_seconds:.0f} s and was killed"
        await self.reap()

    async def reap(self) -> None:
        """Collect the ended process, kill what it left in its group, and close its log."""
        process, self.process = self.process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        code = await process.wait()
        self.ending = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        if self._copy:
            # What is still in the pipe is its last words; a stray grandchild must not keep us waiting for more.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._copy
        if self._log:
            self._log.close()

    def next_backoff(self) -> float:
        """Seconds to wait before the next start: doubled each time, capped, begun anew after a steady run."""
        lived = time.monotonic() - self.started if self.started else 0.0
        if lived > STEADY_SECONDS or self.backoff == 0.0:
            self.backoff = FIRST_BACKOFF
            return self.backoff
        self.backoff = min(self.backoff * 2, LONGEST_BACKOFF)
        return self.backoff
