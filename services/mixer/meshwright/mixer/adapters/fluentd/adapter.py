"""The adapter object and its handler: one chunk an instance and batch, or more when it is large."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pydantic
from pydantic import Field

from meshwright.mixer.adapter.v1 import Entry, Host, LogEntry
from meshwright.mixer.adapters.address import Address, split
from meshwright.mixer.adapters.fluentd.forward import Connection, Event, chunks
from meshwright.mixer.adapters.plain import plain_map
from meshwright.mixer.config.fields import Model, Nanoseconds

_MIB = 1024 * 1024


class Parameters(Model):
    """As the original's. What it buffered (`instanceBufferSize`, `pushIntervalDuration`) is the work queue's now.

    Both are accepted and have no effect.
    """

    address: Address = "localhost:24224"
    integer_duration: Annotated[bool, Field(description="Durations as whole milliseconds; else as text.")] = False
    instance_buffer_size: Annotated[int, Field(ge=0)] = 1024
    max_batch_size_bytes: Annotated[int, Field(ge=1024, le=64 * _MIB)] = 8 * _MIB
    push_interval_duration: Nanoseconds = 60_000_000_000
    push_timeout_duration: Annotated[Nanoseconds, Field(gt=0, description="Deadline of one batch, at most 7s.")] = (
        5_000_000_000
    )


class ForwardHandler:
    """Sends each batch and returns when the server has acknowledged all of it."""

    def __init__(self, connection: Connection, parameters: Parameters) -> None:
        self._connection, self._parameters = connection, parameters

    async def report(self, batch: Sequence[Entry]) -> None:
        """Send the log entries; the tag is the instance's name."""
        by_tag: dict[str, list[Event]] = defaultdict(list)
        for entry in batch:
            if isinstance(entry, LogEntry):
                by_tag[entry.instance].append((entry.timestamp, self._record(entry)))
        for tag, events in by_tag.items():
            await self._connection.send(tag, [*chunks(events, self._parameters.max_batch_size_bytes)])

    def _record(self, entry: LogEntry) -> dict[str, Any]:
        whole = self._parameters.integer_duration
        record = plain_map(entry.variables, integer_durations=whole)
        record["severity"] = entry.severity
        if entry.monitored_resource_type:
            record["monitored_resource_type"] = entry.monitored_resource_type
        if entry.monitored_resource_dimensions:
            dimensions = plain_map(entry.monitored_resource_dimensions, integer_durations=whole)
            record["monitored_resource_dimensions"] = dimensions
        record["meshwright.record.id"] = entry.origin.record_id
        if entry.origin.redelivered:
            record["meshwright.redelivered"] = True
        if entry.origin.trace_id:
            record["trace_id"] = entry.origin.trace_id
        return record


class FluentdAdapter:
    """The adapter as entry points name it."""

    name = "fluentd"
    templates = frozenset({"logentry"})
    parameters: type[pydantic.BaseModel] = Parameters

    @asynccontextmanager
    async def open(self, parameters: Parameters, host: Host) -> AsyncIterator[ForwardHandler]:
        """The connection is opened by the first batch."""
        host_name, port = split(parameters.address)
        seconds = min(parameters.push_timeout_duration / 1e9, 7.0)
        connection = Connection(host_name, port, seconds)
        try:
            yield ForwardHandler(connection, parameters)
        finally:
            await connection.close()


ADAPTER = FluentdAdapter()
