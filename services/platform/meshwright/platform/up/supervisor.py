"""Keeps parts running: starts each when what it needs is healthy, probes it, restarts it with back-off, stops all.

One decision to know: each part has one task (`_keep`) that owns its process from start to end; other code only reads
`statuses()` or waits on `changed`. Everything runs on the main thread, because the death signal that exec.py asks for
follows the thread that started the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

from meshwright.core import errors
from meshwright.platform.up import logfile
from meshwright.platform.up.part import Part, State, Status, Verdict
from meshwright.platform.up.running import Running

PROBE_SECONDS = 0.1  # between probes while a part starts
WATCH_SECONDS = 1.0  # and once it is healthy
PROBE_DEADLINE = 5.0
HOPELESS_STARTS = 5  # of a part that was never healthy: nobody should wait for the deadline to hear of it
UNHEALTHY_AFTER = 3  # failed probes in a row; a single one may be a busy machine


class Supervisor:
    """Runs parts; enter it as a context, then `add` parts in any order."""

    def __init__(self, logs: Path, cwd: Path) -> None:
        self._logs, self._cwd = logs, cwd
        self._running: dict[str, Running] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failure: BaseException | None = None
        self.changed = asyncio.Condition()

    async def __aenter__(self) -> Supervisor:
        """Begin with no parts."""
        self._logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop every part, those that others need last."""
        await self.stop()

    def add(self, part: Part) -> None:
        """Begin to keep `part` running."""
        if part.name in self._running:
            raise ValueError(f"part {part.name} is there already")
        running = self._running[part.name] = Running(part)
        self._tasks[part.name] = asyncio.create_task(self._keep(running), name=f"part {part.name}")

    def statuses(self) -> list[Status]:
        """Every part as it stands, in the order they were added."""
        return [running.status() for running in self._running.values()]

    def status(self, name: str) -> Status:
        """One part as it stands."""
        return self._running[name].status()

    async def until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait until `condition()`, seen on every change, or raise DeadlineExceeded naming `what` and the culprits."""
        try:
            async with asyncio.timeout(seconds), self.changed:
                await self.changed.wait_for(lambda: self._check() or condition())
        except TimeoutError:
            raise errors.DeadlineExceeded(f"{what}: not within {seconds:.0f} s\n{self.complaints()}") from None

    async def until_healthy(self, names: Iterable[str] | None = None, seconds: float = 60.0) -> None:
        """Wait until the named parts, or all, are healthy; raise Unavailable when one of them can't be started."""
        wanted = set(self._running if names is None else names)

        def healthy() -> bool:
            for name in wanted:
                running = self._running[name]
                if not running.proved and running.restarts >= HOPELESS_STARTS:
                    raise errors.Unavailable(f"{name} doesn't start\n{self.complaints()}")
            return all(self._running[name].state is State.HEALTHY for name in wanted)

        await self.until(healthy, seconds, "healthy: " + ", ".join(sorted(wanted)))

    def complaints(self) -> str:
        """What isn't healthy and why, with the end of its log: for an error message."""
        lines: list[str] = []
        for status in self.statuses():
            if status.state is not State.HEALTHY:
                path = self._logs / f"{status.name}.log"
                lines.append(f"  {status.name} is {status.state}: {status.reason or 'no reason known'} (log: {path})")
                if status.state is not State.WAITING:
                    lines += [f"    | {line}" for line in logfile.tail(path)]
        return "\n".join(lines)

    async def restart(self, name: str) -> None:
        """Stop one part's process in its orderly way; it is started again at once."""
        running = self._running[name]
        running.backoff = 0.0
        await running.terminate()

    async def pause(self, name: str) -> None:
        """Stop one part and leave it stopped until `resume`."""
        running = self._running[name]
        running.paused = True
        await running.terminate()
        await self.until(lambda: running.process is None, running.part.stop_seconds + 5, f"{name} stopped")

    async def resume(self, name: str) -> None:
        """Start a paused part again."""
        running = self._running[name]
        running.paused, running.backoff = False, 0.0
        running.wake.set()

    async def stop(self) -> None:
        """Stop all in the order of their ranks; after its deadline a part is killed."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for rank in sorted({running.part.rank for running in self._running.values()}):
            together = [running for running in self._running.values() if running.part.rank == rank]
            await asyncio.gather(*(running.terminate() for running in together))
            for running in together:
                running.set(State.STOPPED)
            await self._notify()

    def _check(self) -> bool:
        if self._failure:
            raise self._failure
        return False

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def _keep(self, running: Running) -> None:
        try:
            while True:
                await self._run(running)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # A fault of ours, not of the part: whoever waits must hear of it instead of waiting on.
            self._failure = error
            running.set(State.STOPPED, f"supervisor: {error!r}")
            await self._notify()

    async def _run(self, running: Running) -> None:
        part = running.part
        await self._await_needs(running)
        if running.paused:
            running.set(State.STOPPED, "paused")
            await self._notify()
            running.wake.clear()
            await running.wake.wait()
            return
        try:
            if part.before_start:
                await part.before_start()
            await running.spawn(self._logs / f"{part.name}.log", self._cwd)
            await self._notify()
            if part.after_start and running.pid:
                await part.after_start(running.pid)
        except (errors.MeshwrightError, OSError) as error:
            await running.terminate()
            running.ending = f"can't start: {error}"
        else:
            await self._watch(running)
        if not running.paused:
            await self._back_off(running)

    async def _await_needs(self, running: Running) -> None:
        def missing() -> list[str]:
            return [
                need
                for need in running.part.needs
                if need not in self._running or self._running[need].state is not State.HEALTHY
            ]

        if missing():
            running.set(State.WAITING, "for " + ", ".join(missing()))
            await self._notify()
            async with self.changed:
                await self.changed.wait_for(lambda: not missing())

    async def _watch(self, running: Running) -> None:
        assert running.process is not None
        ended = asyncio.create_task(running.process.wait(), name=f"wait {running.part.name}")
        try:
            failures = 0
            while not ended.done():
                verdict = await _probe(running.part)
                failures = 0 if verdict.ok else failures + 1
                previous = (running.state, running.reason)
                if verdict.ok:
                    running.set(State.HEALTHY)
                elif running.state is State.STARTING:
                    running.reason = verdict.reason
                elif failures >= UNHEALTHY_AFTER:
                    running.set(State.UNHEALTHY, verdict.reason)
                if previous != (running.state, running.reason):
                    await self._notify()
                pause = WATCH_SECONDS if running.state is State.HEALTHY and verdict.ok else PROBE_SECONDS
                await asyncio.wait({ended}, timeout=pause)
        finally:
            ended.cancel()
        await running.reap()

    async def _back_off(self, running: Running) -> None:
        delay = running.next_backoff()
        running.restarts += 1
        running.set(State.BACKOFF, f"{running.ending}; next start in {delay:.1f} s")
        await self._notify()
        await asyncio.sleep(delay)


async def _probe(part: Part) -> Verdict:
    try:
        # Not wait_for: before Python 3.12 it loses a cancellation that comes with the answer, and `stop` would hang.
        async with asyncio.timeout(PROBE_DEADLINE):
            return await part.probe()
    except TimeoutError:
        return Verdict(False, f"no answer to the health probe in {PROBE_DEADLINE:.0f} s")
    except Exception as error:
        return Verdict(False, f"{type(error).__name__}: {error}")
