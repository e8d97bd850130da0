"""The supervisor starts parts in order, restarts what ends, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from meshwright.core import errors, sockets
from meshwright.platform.up.logfile import LogFile, tail
from meshwright.platform.up.part import Part, State, Verdict
from meshwright.platform.up.supervisor import Supervisor

SLEEPER = (sys.executable, "-I", "-S", "-c", "import signal; signal.pause()")
STUBBORN = (
    sys.executable, "-I", "-S", "-c",
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: signal.pause()",
)  # fmt: skip


async def well() -> Verdict:
    return Verdict(True)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mw") as name:
        yield Path(name)


@pytest.fixture
async def supervisor(folder: Path) -> AsyncIterator[Supervisor]:
    async with Supervisor(folder / "logs", folder) as supervisor:
        yield supervisor


async def test_starts_a_part_only_when_what_it_needs_is_healthy(supervisor: Supervisor) -> None:
    """A part waits for the parts it needs, and says which."""
    healthy = False

    async def later() -> Verdict:
        return Verdict(healthy, "" if healthy else "still loading")

    supervisor.add(Part("first", SLEEPER, later))
    supervisor.add(Part("second", SLEEPER, well, needs=("first",)))
    await supervisor.until(lambda: supervisor.status("first").reason == "still loading", 10, "first started")
    assert supervisor.status("second").state is State.WAITING
    assert supervisor.status("second").reason == "for first"
    healthy = True
    await supervisor.until_healthy(seconds=10)
    assert supervisor.status("second").pid


async def test_restarts_a_killed_part(supervisor: Supervisor) -> None:
    """A part that was killed runs again with another process id, and its hooks run at every start."""
    starts: list[int] = []
    prepared: list[int] = []

    async def before() -> None:
        prepared.append(len(starts))

    async def after(pid: int) -> None:
        starts.append(pid)

    supervisor.add(Part("part", SLEEPER, well, before_start=before, after_start=after))
    await supervisor.until_healthy(seconds=10)
    first = supervisor.status("part").pid
    assert first
    os.kill(first, signal.SIGKILL)
    await supervisor.until(lambda: supervisor.status("part").restarts == 1, 10, "noticed")
    await supervisor.until_healthy(seconds=10)
    assert supervisor.status("part").pid not in (None, first)
    assert starts == [first, supervisor.status("part").pid]
    assert prepared == [0, 1]


async def test_backs_off_from_a_part_that_keeps_ending(supervisor: Supervisor) -> None:
    """Restarts of a part that ends at once come slower each time, and its last words are in the complaint."""
    supervisor.add(Part("part", (sys.executable, "-I", "-S", "-c", "print('no such file'); raise SystemExit(3)"), well))
    started = time.monotonic()
    await supervisor.until(lambda: supervisor.status("part").restarts == 4, 20, "four starts")
    assert time.monotonic() - started > 0.2 + 0.4 + 0.8
    assert "status 3" in supervisor.status("part").reason
    assert "no such file" in supervisor.complaints()


async def test_failing_hook_is_a_reason_not_an_end(supervisor: Supervisor) -> None:
    """When a part can't be prepared the supervisor says why and tries again."""
    attempts = 0

    async def before() -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise errors.Unavailable("citadel is away")

    supervisor.add(Part("part", SLEEPER, well, before_start=before))
    await supervisor.until(lambda: "citadel is away" in supervisor.complaints(), 10, "a reason")
    await supervisor.until_healthy(seconds=10)
    assert attempts == 3


async def test_until_names_the_culprit(supervisor: Supervisor) -> None:
    """A wait that runs out names the part, its reason and its log."""

    async def never() -> Verdict:
        return Verdict(False, "no config yet")

    supervisor.add(Part("part", SLEEPER, never))
    with pytest.raises(errors.DeadlineExceeded, match=r"part is starting: no config yet \(log: .*part.log\)"):
        await supervisor.until_healthy(seconds=0.7)


async def test_gives_up_on_a_part_that_never_starts(supervisor: Supervisor) -> None:
    """Who waits for a part that ends again and again before it was healthy hears of it before the deadline."""

    async def never() -> Verdict:
        return Verdict(False, "not yet")

    supervisor.add(Part("part", (sys.executable, "-I", "-S", "-c", "raise SystemExit('no such option')"), never))
    with pytest.raises(errors.Unavailable, match="part doesn't start(.|\n)*no such option"):
        await supervisor.until_healthy(seconds=50)


async def test_pause_and_resume(supervisor: Supervisor) -> None:
    """A paused part stays stopped until it is resumed."""
    supervisor.add(Part("part", SLEEPER, well))
    await supervisor.until_healthy(seconds=10)
    await supervisor.pause("part")
    assert supervisor.status("part").pid is None
    await supervisor.resume("part")
    await supervisor.until_healthy(seconds=10)


async def test_stop_ends_all_in_reverse_order_and_kills_the_stubborn(folder: Path) -> None:
    """Parts of a higher rank end later; what ignores SIGTERM is killed after its deadline."""
    async with Supervisor(folder / "logs", folder) as supervisor:
        supervisor.add(Part("base", SLEEPER, well, rank=1))
        supervisor.add(Part("user", STUBBORN, well, needs=("base",), stop_seconds=0.5))
        await supervisor.until_healthy(seconds=10)
        pids = [status.pid for status in supervisor.statuses()]
        order: list[str] = []

        async def note() -> None:
            for status in supervisor.statuses():
                if status.state is State.STOPPED and status.name not in order:
                    order.append(status.name)

        supervisor._notify = note  # type: ignore[method-assign]
    assert order == ["user", "base"]
    assert all(pid and not Path(f"/proc/{pid}").exists() for pid in pids)


def test_no_part_outlives_a_killed_launcher(folder: Path) -> None:
    """kill -9 of the launcher ends its parts: the kernel does it."""
    program = (
        "import asyncio, pathlib, sys\n"
        "from meshwright.platform.up.part import Part, Verdict\n"
        "from meshwright.platform.up.supervisor import Supervisor\n"
        "async def well(): return Verdict(True)\n"
        "async def main():\n"
        f"    folder = pathlib.Path({str(folder)!r})\n"
        "    async with Supervisor(folder, folder) as supervisor:\n"
        f"        supervisor.add(Part('part', {STUBBORN!r}, well))\n"
        "        await supervisor.until_healthy(seconds=20)\n"
        "        print(supervisor.status('part').pid, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout
        pid = int(launcher.stdout.readline())
        start = sockets.start_time(pid)
        assert start
        launcher.kill()
    deadline = time.monotonic() + 10
    while sockets.start_time(pid) == start:
        assert time.monotonic() < deadline, "the part outlived its launcher"
        os.sched_yield()


def test_log_is_bounded(folder: Path) -> None:
    """A log keeps one older generation and never more than twice its limit."""
    log = LogFile(folder / "part.log", limit=1000)
    for number in range(100):
        log.write(f"line {number:03} {'x' * 40}\n".encode())
    log.close()
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert set(sizes) == {"part.log", "part.log.1"}
    assert all(size <= 1000 for size in sizes.values())
    assert tail(folder / "part.log", 1)[0].startswith("line 099")
    assert (folder / "part.log").stat().st_mode & 0o777 == 0o600
