"""Log entries → one OTLP logs request: one log record an entry, tied to the request's trace.

Empty text is left out: it is the expressions' way to say that there was nothing."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs, SeverityNumber

from meshwright.mixer.adapter.v1 import LogEntry
from meshwright.mixer.adapters.opentelemetry import values

_SEVERITIES = {
    "trace": SeverityNumber.SEVERITY_NUMBER_TRACE,
    "debug": SeverityNumber.SEVERITY_NUMBER_DEBUG,
    "info": SeverityNumber.SEVERITY_NUMBER_INFO,
    "default": SeverityNumber.SEVERITY_NUMBER_INFO,
    "notice": SeverityNumber.SEVERITY_NUMBER_INFO2,
    "warning": SeverityNumber.SEVERITY_NUMBER_WARN,
    "warn": SeverityNumber.SEVERITY_NUMBER_WARN,
    "error": SeverityNumber.SEVERITY_NUMBER_ERROR,
    "critical": SeverityNumber.SEVERITY_NUMBER_FATAL,
}
_SAMPLED = 0x01


def request(entries: Sequence[LogEntry], instance: str) -> ExportLogsServiceRequest:
    """One request for all entries of a batch; `instance` names the mixer replica."""
    scope = ScopeLogs(scope=values.SCOPE, log_records=[_record(entry) for entry in entries])
    return ExportLogsServiceRequest(
        resource_logs=[ResourceLogs(resource=values.resource(instance), scope_logs=[scope])]
    )


def _record(entry: LogEntry) -> LogRecord:
    origin = entry.origin
    given = {
        **{name: each for name, each in entry.variables.items() if each != ""},
        **entry.monitored_resource_dimensions,
        **values.marks([origin]),
        "meshwright.record.id": origin.record_id,
        "meshwright.instance": entry.instance,
    }
    if origin.reporter:
        given["meshwright.reporter"] = origin.reporter
    trace = bytes.fromhex(origin.trace_id) if len(origin.trace_id) == 32 else b""
    span = bytes.fromhex(origin.span_id) if len(origin.span_id) == 16 else b""
    record = LogRecord(
        time_unix_nano=values.nanoseconds(entry.timestamp),
        observed_time_unix_nano=values.nanoseconds(origin.time),
        severity_number=_SEVERITIES.get(entry.severity.lower(), SeverityNumber.SEVERITY_NUMBER_UNSPECIFIED),
        severity_text=entry.severity,
        attributes=values.attributes(given),
        trace_id=trace,
        span_id=span,
        flags=_SAMPLED if trace else 0,
    )
    summary = [
        given[name] for name in ("http.request.method", "url.path", "http.response.status_code") if name in given
    ]
    record.body.string_value = " ".join(map(str, summary)) or entry.instance
    return record
