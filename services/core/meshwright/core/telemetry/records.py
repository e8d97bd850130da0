"""Log lines for OTLP: kept for a moment, encoded in batches.

One decision to know: what the telemetry says about its own troubles stays on stderr, or each refusal would make the
next.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.resource.v1 import resource_pb2

from meshwright.core.telemetry.native import Value, attributes

_WAITING = 1024  # lines; the oldest are dropped first, they are on stderr anyway
_OWN = ("telemetry refused", "telemetry not wanted", "collector away", "collector back")
_NOT_ATTRIBUTES = ("event", "level", "timestamp", "trace_id", "span_id", "service")
_SEVERITIES = {
    "debug": logs_pb2.SEVERITY_NUMBER_DEBUG,
    "info": logs_pb2.SEVERITY_NUMBER_INFO,
    "warning": logs_pb2.SEVERITY_NUMBER_WARN,
    "error": logs_pb2.SEVERITY_NUMBER_ERROR,
    "critical": logs_pb2.SEVERITY_NUMBER_FATAL,
}


class Records:
    """Give it to `logs.forward`; `take` returns what came since the last time. May be fed from any thread."""

    def __init__(self, resource: Mapping[str, Value]) -> None:
        self._resource = resource
        self._waiting: deque[logs_pb2.LogRecord] = deque(maxlen=_WAITING)

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Keep one finished event."""
        if event.get("event") not in _OWN:
            self._waiting.append(_record(event))

    def take(self) -> logs_service_pb2.ExportLogsServiceRequest | None:
        """Return an export request, or None when nothing was said."""
        records = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not records:
            return None
        scope = logs_pb2.ScopeLogs(scope=common_pb2.InstrumentationScope(name="meshwright.core"), log_records=records)
        owner = resource_pb2.Resource(attributes=attributes(self._resource.items()))
        return logs_service_pb2.ExportLogsServiceRequest(
            resource_logs=[logs_pb2.ResourceLogs(resource=owner, scope_logs=[scope])]
        )


def _record(event: Mapping[str, Any]) -> logs_pb2.LogRecord:
    level = str(event.get("level", "info"))
    now = time.time_ns()
    fields = ((key, _value(value)) for key, value in event.items() if key not in _NOT_ATTRIBUTES)
    return logs_pb2.LogRecord(
        time_unix_nano=now,
        observed_time_unix_nano=now,
        severity_number=_SEVERITIES.get(level, logs_pb2.SEVERITY_NUMBER_INFO),
        severity_text=level,
        body=common_pb2.AnyValue(string_value=_text(event.get("event", ""))),
        attributes=attributes(fields),
        trace_id=bytes.fromhex(event.get("trace_id", "")),
        span_id=bytes.fromhex(event.get("span_id", "")),
    )


def _value(value: Any) -> Value:
    if isinstance(value, bool | float):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    return _text(value)


def _text(value: Any) -> str:
    return str(value).encode(errors="replace").decode()  # protobuf takes no half of a surrogate pair
