"""A part's log: what it prints, in a file of bounded size with one older generation.

One decision to know: the part writes into a pipe that `up` reads, so that the bound holds for every part, ours or not.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

LIMIT = 16 << 20  # bytes in a generation; a part can fill twice that
_CHUNK = 1 << 16


class LogFile:
    """Appends bytes to `path`; at the limit the file becomes `path.1` and a new one begins."""

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        self._path, self._limit = path, limit
        self._open()

    def _open(self) -> None:
        self._file = open(  # noqa: SIM115 - closed by close()
            self._path, "ab", buffering=0, opener=lambda path, flags: os.open(path, flags, 0o600)
        )
        self._size = self._file.tell()

    def write(self, data: bytes) -> None:
        """Append `data`."""
        if self._size + len(data) > self._limit and self._size:
            self._file.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._open()
        self._file.write(data)
        self._size += len(data)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


async def copy(reader: asyncio.StreamReader, log: LogFile) -> None:
    """Copy until the pipe's other end is closed."""
    while data := await reader.read(_CHUNK):
        log.write(data)


def tail(path: Path, lines: int = 5) -> list[str]:
    """Return the last lines of a log, for an error message."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            return [line[:400] for line in file.read().decode(errors="replace").splitlines()[-lines:]]
    except OSError:
        return []
