"""Files that must be whole and private: written beside, synced, then renamed over the old ones."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from meshwright.core.errors import ConfigError


def write(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace `path` by `data`, durably: after a crash the file has the old content or the new one, whole."""
    directory(path.parent)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    _sync(path.parent)


def directory(path: Path) -> None:
    """Make a folder, and those above it, that only their owner can enter; those that exist keep their rights."""
    try:
        if not path.parent.exists():  # mkdir(parents=True) would give those above it everybody's rights
            directory(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"can't make {path}: {error.strerror}", field="DIR") from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: two bootstraps of one folder run one after the other."""
    directory(folder)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
