"""The access log: a line for each call that is worth one, in the form of all log lines.

Rust collects the records; see `AccessRecord` for what they hold, and what never. One decision to know: the writer takes
a bounded share of the loop's time, so that a flood of refused calls costs lines (counted as
`meshwright_grpc_server_access_records_dropped_total`) and not the service.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import Mapping
from typing import Any, Protocol

import structlog

from meshwright.dataplane.telemetry import AccessRecord

_log = structlog.get_logger("meshwright.access")

_SECONDS = 0.25
_AT_ONCE = 32  # records that are written without a pause for the service's own work: about a millisecond
_ROUND = 1024  # records in `_SECONDS`; more wait, and are dropped when too many do
_DROPPED_SECONDS = 10.0  # between two lines about dropped records
# What an operator reads about without having asked for all calls; `is_trouble` of the Rust crate chooses the same.
_TROUBLE = frozenset(
    (
        "UNKNOWN",
        "DEADLINE_EXCEEDED",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    )
)


class Source(Protocol):
    """What is asked of a server; `meshwright.dataplane.grpc.NativeServer` is one."""

    def access_records(self, most: int) -> list[AccessRecord]:
        """Take records of calls that ended, at most `most`."""

    def stats(self) -> Mapping[str, int]:
        """Return the counters by name."""


class Writer:
    """Writes what `source` has recorded, from `start` to `stop`."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._task: asyncio.Task[None] | None = None
        self._dropped = 0

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run(), name="write access log")

    async def stop(self) -> None:
        """Write what is left, and end."""
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        for _ in range(0, 4 * _ROUND, _AT_ONCE):
            if not self._write():
                break
        self._tell_dropped()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        told = loop.time()
        while True:
            await asyncio.sleep(_SECONDS)
            for _ in range(0, _ROUND, _AT_ONCE):
                if not self._write():
                    break
                await asyncio.sleep(0)
            if loop.time() - told > _DROPPED_SECONDS:
                told = loop.time()
                self._tell_dropped()

    def _write(self) -> bool:
        """Write a few records; return whether there may be more."""
        records = self._source.access_records(_AT_ONCE)
        for record in records:
            _write(record)
        return len(records) == _AT_ONCE

    def _tell_dropped(self) -> None:
        dropped = self._source.stats().get("access_records_dropped", 0)
        if dropped > self._dropped:
            _log.warning("access records dropped", count=dropped - self._dropped)
            self._dropped = dropped


def _write(record: AccessRecord) -> None:
    ended = datetime.datetime.fromtimestamp(record.unix_ns / 1e9, datetime.UTC)
    fields: dict[str, Any] = {
        "method": record.path.removeprefix("/"),
        "status": record.status,
        "peer": record.principal,
        "address": record.address,
        "ended": ended.isoformat(timespec="milliseconds"),
        "seconds": round(record.seconds, 6),
        "request_messages": record.request_messages,
        "request_bytes": record.request_bytes,
        "response_messages": record.response_messages,
        "response_bytes": record.response_bytes,
    }
    if record.trace is not None:
        fields["trace_id"], fields["span_id"] = record.trace
    write = _log.warning if record.status in _TROUBLE else _log.info
    write("call", **fields)
