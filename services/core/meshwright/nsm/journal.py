"""A hop's connections in a local file, so that kill -9 loses none of them.

One decision to know: it is a log of lines, each a JSON object with its checksum, synced before the caller is answered.
Whatever writes at the same moment shares one sync. A torn last line (the machine went down while it was written) is
dropped; it was never answered. The file is 0600: it holds path tokens.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import json
import os
import zlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from google.protobuf.message import DecodeError

from meshwright.core import errors
from meshwright.nsm.connections import ConnectionState
from meshwright.nsm.wire import Connection

_COMPACT_LINES = 4096  # and more than twice what is alive: then the file is written anew

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Line:
    id: str
    alive: bool
    text: str


class Journal:
    """`await record(state)` after each change; `load()` once, at the start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise errors.ConfigError(f"can't open {path}: {error.strerror}", field="journal") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._file)
            raise errors.Unavailable(f"{path} is in use by another process (one journal, one process)") from error
        self._alive: dict[str, str] = {}
        self._lines = 0
        self._pending: list[tuple[_Line, asyncio.Future[None]]] = []
        self._flushing: asyncio.Task[None] | None = None

    def load(self) -> list[ConnectionState]:
        """Return the connections that were alive, and begin a new file with only them."""
        with open(self._file, "rb", closefd=False) as file:
            file.seek(0)
            content = file.read()
        states: dict[str, ConnectionState] = {}
        for number, line in enumerate(content.split(b"\n"), 1):
            if not line:
                continue
            try:
                record = _read(line)
                state = _state(record) if record["op"] == "put" else None
            except (ValueError, KeyError, TypeError, DecodeError) as error:
                log.warning("nsm.journal.line_dropped", file=str(self._path), line=number, reason=str(error))
                continue
            if state is None:
                states.pop(record["id"], None)
                self._alive.pop(record["id"], None)
            else:
                states[state.id] = state
                self._alive[state.id] = line.decode()
        self._compact()
        return list(states.values())

    async def record(self, state: ConnectionState) -> None:
        """Write the state, or that it is closed, and return when it is on the disk."""
        record = _record(state)
        done = asyncio.get_running_loop().create_future()
        self._pending.append((_Line(state.id, record["op"] == "put", _line(record)), done))
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush(), name=f"journal {self._path}")
        await done

    async def close(self) -> None:
        """Write what is pending and close the file; another process may open it then."""
        if self._flushing is not None:
            await self._flushing
        os.close(self._file)

    async def _flush(self) -> None:
        while self._pending:
            batch, self._pending = self._pending, []
            failure: errors.MeshwrightError | None = None
            try:
                await asyncio.to_thread(self._write, [line for line, _ in batch])
            except OSError as error:
                failure = errors.Exhausted(f"can't write {self._path}: {error.strerror} (is the disk full?)")
            for _, done in batch:
                if done.done():  # its caller has gone
                    continue
                if failure is None:
                    done.set_result(None)
                else:
                    done.set_exception(failure)

    def _write(self, batch: list[_Line]) -> None:
        _write_all(self._file, "".join(line.text + "\n" for line in batch).encode())
        os.fdatasync(self._file)
        for line in batch:
            self._lines += 1
            if line.alive:
                self._alive[line.id] = line.text
            else:
                self._alive.pop(line.id, None)
        if self._lines > max(_COMPACT_LINES, 2 * len(self._alive)):
            self._compact()

    def _compact(self) -> None:
        """Replace the file in one step by one that holds what is alive."""
        fresh = self._path.with_name(self._path.name + ".new")
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _write_all(descriptor, "".join(line + "\n" for line in self._alive.values()).encode())
        os.fsync(descriptor)
        fresh.rename(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(folder)
        os.close(folder)
        old, self._file = self._file, descriptor
        os.close(old)
        self._lines = len(self._alive)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _record(state: ConnectionState) -> dict[str, Any]:
    if state.accepted is None:
        return {"op": "remove", "id": state.id}
    return {
        "op": "put",
        "id": state.id,
        "owner": state.owner,
        "caller_id": state.caller_id,
        "next_hop": state.next_hop,
        "expires": state.expires.isoformat() if state.expires else None,
        "accepted": _pack(state.accepted),
        "downstream": _pack(state.downstream) if state.downstream is not None else None,
    }


def _state(record: dict[str, Any]) -> ConnectionState:
    downstream = record["downstream"]
    return ConnectionState(
        id=str(record["id"]),
        owner=str(record["owner"]),
        caller_id=str(record["caller_id"]),
        next_hop=str(record["next_hop"]),
        expires=datetime.fromisoformat(record["expires"]) if record["expires"] else None,
        accepted=_unpack(record["accepted"]),
        downstream=_unpack(downstream) if downstream is not None else None,
    )


def _pack(connection: Connection) -> str:
    return base64.b64encode(connection.SerializeToString()).decode()


def _unpack(text: str) -> Connection:
    connection = Connection()
    connection.ParseFromString(base64.b64decode(text, validate=True))
    return connection


def _line(record: dict[str, Any]) -> str:
    body = json.dumps(record, separators=(",", ":"))
    return f"{zlib.crc32(body.encode()):08x} {body}"


def _read(line: bytes) -> dict[str, Any]:
    checksum, _, body = line.partition(b" ")
    if int(checksum, 16) != zlib.crc32(body):
        raise ValueError("the checksum doesn't fit (a torn write)")
    record = json.loads(body)
    if not isinstance(record, dict):
        raise TypeError("not an object")
    return record
