"""Records as the engine makes them, for tests of what comes after it."""

from __future__ import annotations

from datetime import UTC, datetime

from meshwright.api.istio.mixer.v1 import attributes_pb2
from meshwright.api.mixer.v1 import record_pb2

Value = attributes_pb2.Attributes.AttributeValue


def record(number: int, handler: str = "opentelemetry.meshwright-system") -> record_pb2.Record:
    """One access log record with a log entry and a count for one handler."""
    result = record_pb2.Record(id=f"{number:032x}", kind=record_pb2.Record.HTTP_ACCESS)
    result.time.FromDatetime(datetime.now(UTC))
    result.attributes.attributes["request.path"].string_value = f"/{number}"
    result.trace_id, result.span_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    log = result.emissions.add(handler=handler, sink="opentelemetry", template="logentry", instance="log.default")
    log.fields["severity"].string_value = "info"
    log.fields["variables.url.path"].string_value = f"/{number}"
    count = result.emissions.add(handler=handler, sink="opentelemetry", template="metric", instance="count.default")
    count.fields["value"].int64_value = 1
    count.fields["dimensions.code"].int64_value = 200
    return result
