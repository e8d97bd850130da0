"""A box: processes in namespaces of their own (mounts, processes, network, host name, IPC) that end together.

One decision to know: the box is its first process, which only waits and collects orphans (pause.c). The kernel ends
everything in the box with it, and mounts and networks go with the last process; so nothing is left behind whoever is
killed. In the box, /run, /var/lib and /var/log are the box's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAUSE = ROOT / "build" / "pause"
SECONDS = 30  # for small things: a box to be there, a process to end
OWN = ("lib", "log")  # of /var: below the box's folder, kept when it has ended

_BEGIN = """set -e
mount --make-rshared /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/netns
for name in lib log; do mkdir -p "$1/$name"; mount --bind "$1/$name" "/var/$name"; done
ip link set lo up
hostname "$2"
echo begun
exec "$3"
"""


class BoxError(Exception):
    """Something in a box can't be started or has ended; the message has its last lines."""


def missing(*programs: str) -> str | None:
    """Return why this machine can have no boxes with these programs, or None."""
    if os.geteuid() != 0:
        return "root is needed for namespaces with processes of several users"
    for program in ("unshare", "nsenter", "setpriv", "ip", "cc", *programs):
        if shutil.which(program) is None:
            return f"{program} isn't on this machine (.ci/packages says what is wanted)"
    return None


def pause() -> Path:
    """Return the program that only waits, built if it isn't there."""
    source = Path(__file__).with_name("pause.c")
    if not PAUSE.exists() or PAUSE.stat().st_mtime < source.stat().st_mtime:
        PAUSE.parent.mkdir(parents=True, exist_ok=True)
        made = PAUSE.with_suffix(f".{os.getpid()}")
        subprocess.run(["cc", "-O2", "-static", "-Wall", "-Wextra", "-Werror", "-o", made, source], check=True)
        made.replace(PAUSE)
    return PAUSE


def until(what: str, condition: Callable[[], object], seconds: float = SECONDS, every: float = 0.1) -> None:
    """Wait for a condition that may raise until it holds."""
    deadline = time.monotonic() + seconds
    while True:
        last: object
        try:
            last = condition()
            if last:
                return
        except (OSError, subprocess.SubprocessError) as error:
            last = error
        if time.monotonic() > deadline:
            said = getattr(last, "stderr", None) or last
            raise BoxError(f"{what}: not after {seconds:.0f} s; last: {said}")
        time.sleep(every)


@dataclass
class Box:
    """A box under way; its folder holds logs, and what says which processes are its own."""

    folder: Path
    pid: int  # of its first process
    started: str  # when that began: numbers are used again
    programs: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @classmethod
    def begin(cls, folder: Path, *, outlive: bool = False) -> Box:
        """Make a box, after what a box in the same folder may have left. It ends with this process, or outlives it."""
        cls.end_at(folder)
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        spaces = ["--mount", "--pid", "--net", "--uts", "--ipc", "--propagation=private", "--mount-proc"]
        words = ["unshare", *spaces, "--fork", "--kill-child", "sh", "-c", _BEGIN, "sh", folder, folder.name, pause()]
        with (folder / "logs" / "box.log").open("wb") as log:
            outer = subprocess.Popen(
                [*([] if outlive else ["setpriv", "--pdeathsig=KILL"]), *words],
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert outer.stdout is not None
        with outer.stdout as said:
            begun = said.readline() == b"begun\n"
        if not begun:
            outer.wait(SECONDS)
            raise BoxError(f"no box: {(folder / 'logs' / 'box.log').read_text().strip()}")
        pid = int(Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()[0])
        started = _started(pid) or ""
        (folder / "box.json").write_text(json.dumps({"pid": pid, "started": started}))
        return cls(folder, pid, started, {"box": outer})

    @classmethod
    def at(cls, folder: Path) -> Box | None:
        """Return the box that goes on in a folder."""
        try:
            known = json.loads((folder / "box.json").read_text())
        except (OSError, ValueError):
            return None
        found = cls(folder, known["pid"], known["started"])
        return found if found.goes_on() else None

    @classmethod
    def end_at(cls, folder: Path) -> None:
        """End the box that goes on in a folder, if one does."""
        if box := cls.at(folder):
            box.end()

    def goes_on(self) -> bool:
        """Whether its first process lives."""
        return _started(self.pid) == self.started

    def command(self, *words: object) -> list[str]:
        """Return the command that runs `words` in the box."""
        spaces = ["--mount", "--pid", "--net", "--uts", "--ipc"]
        return ["nsenter", f"--target={self.pid}", *spaces, "--", *map(str, words)]

    def run(self, *words: object, seconds: float = SECONDS, text: str | None = None) -> str:
        """Run a command in the box to its end and return what it printed."""
        done = subprocess.run(self.command(*words), input=text, capture_output=True, text=True, timeout=seconds)
        if done.returncode:
            shown = " ".join(map(str, words))[:300]
            raise BoxError(f"{shown}: status {done.returncode}: {(done.stdout + done.stderr).strip()[-3000:]}")
        return done.stdout

    def start(self, name: str, *words: object, environment: Mapping[str, str] | None = None) -> None:
        """Start a program in the box; its log is logs/NAME.log."""
        with self.log(name).open("wb") as log:
            self.programs[name] = subprocess.Popen(
                self.command(*words),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )

    def ready(self, name: str, condition: Callable[[], object], seconds: float = 60) -> None:
        """Wait until a program that was started here does what it is for."""

        def holds() -> object:
            if (status := self.programs[name].poll()) is not None:
                raise BoxError(f"{name} ended with status {status}: {self.tail(name)}")
            try:
                return condition()
            except BoxError as error:
                raise OSError(str(error)) from error

        try:
            until(name, holds, seconds)
        except BoxError as error:
            raise BoxError(f"{error}; {self.log(name)}: {self.tail(name)}") from None

    def log(self, name: str) -> Path:
        """Return a program's log."""
        return self.folder / "logs" / f"{name}.log"

    def tail(self, name: str, lines: int = 5) -> str:
        """Return the end of a program's log."""
        return "\n".join(self.log(name).read_text(errors="replace").splitlines()[-lines:])

    def end(self) -> None:
        """End everything in the box."""
        if self.goes_on():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        for program in self.programs.values():
            program.wait(SECONDS)
        until(f"the end of the box in {self.folder}", lambda: not self.goes_on())
        (self.folder / "box.json").unlink(missing_ok=True)


def remove(folder: Path, names: Sequence[str] = OWN) -> None:
    """Remove what an ended box has kept."""
    for name in names:
        shutil.rmtree(folder / name, ignore_errors=True)


def _started(pid: int) -> str | None:
    """Return when a process began: with its number, who it is. None for one that has ended."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if words[0] in "ZX" else words[19]
