"""One `up` per data directory: a file lock that the kernel releases however the holder ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from meshwright.core import errors

_NAME = "up.lock"


class Running(errors.Unavailable):
    """Another `up` holds the data directory; `pid` says which."""

    def __init__(self, data: Path, pid: int) -> None:
        self.pid = pid
        super().__init__(
            f"{data} is in use: `meshwright up` runs there as process {pid} "
            "(`meshwright up --status` shows it; stop it with Ctrl-C, or name another directory with --data)"
        )


@contextlib.contextmanager
def hold(data: Path) -> Iterator[None]:
    """Hold the data directory, which is made with mode 0700 when missing; raise Running when somebody else holds it."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    data.chmod(0o700)
    descriptor = os.open(data / _NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Running(data, _pid(descriptor)) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def holder(data: Path) -> int | None:
    """Return the process id of the `up` that holds the data directory, or None."""
    try:
        descriptor = os.open(data / _NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid(descriptor)
    finally:
        os.close(descriptor)
    return None


def _pid(descriptor: int) -> int:
    text = os.pread(descriptor, 20, 0).strip()
    return int(text) if text.isdigit() else 0
