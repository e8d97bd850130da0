"""The last N log records, in memory: a ring."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as OtlpRecord
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from meshwright.api.collector.v1 import collector_pb2 as pb
from meshwright.platform.collector import values


class LogStore:
    """Records in the order of arrival; the oldest goes when the limit is reached."""

    def __init__(self, limit: int) -> None:
        self._records: deque[tuple[Resource, OtlpRecord]] = deque(maxlen=limit)
        self.received = 0

    def __len__(self) -> int:
        """Return how many records are kept."""
        return len(self._records)

    @property
    def evicted(self) -> int:
        """How many records were pushed out."""
        return self.received - len(self._records)

    def add(self, batch: ResourceLogs) -> None:
        """Keep the records of one resource."""
        for scope in batch.scope_logs:
            self.received += len(scope.log_records)
            self._records.extend((batch.resource, record) for record in scope.log_records)

    def find(
        self, *, attributes: Mapping[str, str] | None = None, body: str = "", trace_id: str = ""
    ) -> Iterator[tuple[Resource, OtlpRecord]]:
        """Yield what matches, newest first; `answer` turns it into a message."""
        trace = bytes.fromhex(trace_id)
        for resource, record in reversed(self._records):
            if (
                (not trace or record.trace_id == trace)
                and values.matches(attributes or {}, record.attributes, resource.attributes)
                and (not body or body in values.text(record.body))
            ):
                yield resource, record


def answer(resource: Resource, record: OtlpRecord) -> pb.LogRecord:
    """Return one record as the query API shows it."""
    about = values.attributes(resource.attributes)
    return pb.LogRecord(
        time_unix_nano=record.time_unix_nano or record.observed_time_unix_nano,
        severity=record.severity_text,
        body=values.text(record.body),
        attributes=values.attributes(record.attributes),
        resource=about,
        service=about.get("service.name", ""),
        trace_id=record.trace_id.hex(),
        span_id=record.span_id.hex(),
    )
