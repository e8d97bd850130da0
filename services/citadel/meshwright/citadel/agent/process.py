"""What the kernel says about a process, read so that the answer can't belong to another process with the same number.

One decision to know: who connected is held by a process file descriptor that the kernel gives with the connection, for
as long as it is served. A number is only reused after its process is gone, which the descriptor tells: what /proc says
of the number is believed if the held process runs afterwards.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import stat
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from meshwright.citadel.agent import cgroups
from meshwright.core.errors import Forbidden, Unavailable

_PROC = Path("/proc")
_START_TIME = 22  # field of /proc/<pid>/stat, counted from 1 (proc_pid_stat(5))


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found out; `executable` is None when it can't be told for sure."""

    pid: int
    uid: int
    gid: int
    started: int  # clock ticks since boot
    executable: str | None
    container: cgroups.Container | None = None  # of a pod


class Process:
    """One running process, held by a duplicate of the descriptor `held`; a context manager that lets go of it."""

    def __init__(self, pid: int, held: int) -> None:
        if pid <= 0:  # the kernel's answer for a peer outside the agent's process namespace
            raise Forbidden("the caller's process can't be seen from the agent's process namespace (run them in one)")
        self.pid = pid
        try:
            self._descriptor = os.dup(held)
        except OSError as error:
            raise Unavailable(f"process {pid} can't be held: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the process."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def fileno(self) -> int:
        """Return the descriptor, which becomes readable when the process ends."""
        return self._descriptor

    def alive(self) -> bool:
        """Return whether the process still runs."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return not poll.poll(0)

    def facts(self, uid: int, gid: int, connected: int) -> Facts:
        """Read what can be told of the process whose credentials the kernel gave with the connection.

        `connected` is when the connection was accepted, in clock ticks since boot: a process that started later can't
        have made it, so its number was reused. (Possible before Linux 6.5, where the held process was found by number.)
        Raises Forbidden when this isn't the process that connected.
        """
        started = start_time(self.pid)
        executable = _executable(self.pid)
        container = _container(self.pid)
        # Asked last: all that was read before belongs to the held process only if it hasn't ended meanwhile.
        if started is None or not self.alive():
            raise Forbidden(f"process {self.pid} has ended")
        if started > connected:
            raise Forbidden(f"process {self.pid} started after the connection was made: the number was reused")
        return Facts(self.pid, uid, gid, started, executable, container)


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot, or None when there is no such process.

    A launcher puts ``<pid>@<start_time(pid)>`` into a `unix:pid` selector.
    """
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field, a name in brackets, may hold spaces and brackets itself: count from the last bracket.
    fields = text.rpartition(")")[2].split()
    return int(fields[_START_TIME - 3])


def ticks_ago(seconds: float) -> int:
    """Return the moment that many seconds ago in clock ticks since boot, the unit of `start_time`, rounded up."""
    with contextlib.suppress(OSError):
        uptime = float((_PROC / "uptime").read_text().split()[0])
        return int((uptime - seconds) * os.sysconf("SC_CLK_TCK")) + 2  # both times were rounded down
    raise Unavailable("/proc/uptime can't be read (mount /proc)")


def _container(pid: int) -> cgroups.Container | None:
    return cgroups.container(_cgroup(str(pid)), _kubelets_root())


@functools.cache
def _kubelets_root() -> tuple[str, ...] | None:
    return cgroups.root(_cgroup("self"))


def _cgroup(process: str) -> str:
    try:
        with (_PROC / process / "cgroup").open("rb") as file:
            return file.read(cgroups.MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _executable(pid: int) -> str | None:
    """Return the executable's path if, in our own view of the file system, it is the file that runs.

    In a mount namespace of its own (which any user can make) a process may run anything under any path, and a file that
    was replaced isn't the one that was meant: both differ in device or inode from what we see at that path.
    """
    link = _PROC / str(pid) / "exe"
    try:
        path = os.readlink(link)
        running, seen = os.stat(link), os.stat(path)
    except OSError:
        return None
    same = (running.st_dev, running.st_ino) == (seen.st_dev, seen.st_ino)
    return path if same and stat.S_ISREG(seen.st_mode) else None
