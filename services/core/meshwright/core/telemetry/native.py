"""Spans that Rust finished, turned into OTLP without a detour over Python's SDK objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

Value = str | bool | int | float


class NativeSpan(Protocol):
    """A finished span as `meshwright.dataplane.telemetry` hands it over; ids are raw bytes, times Unix nanoseconds."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def trace_id(self) -> bytes: ...  # noqa: D102
    @property
    def span_id(self) -> bytes: ...  # noqa: D102
    @property
    def parent_span_id(self) -> bytes | None: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def start_unix_ns(self) -> int: ...  # noqa: D102
    @property
    def end_unix_ns(self) -> int: ...  # noqa: D102
    @property
    def error(self) -> str | None: ...  # noqa: D102
    @property
    def attributes(self) -> Mapping[str, Value]: ...  # noqa: D102


_KINDS = {
    "internal": trace_pb2.Span.SPAN_KIND_INTERNAL,
    "server": trace_pb2.Span.SPAN_KIND_SERVER,
    "client": trace_pb2.Span.SPAN_KIND_CLIENT,
    "consumer": trace_pb2.Span.SPAN_KIND_CONSUMER,
}


def encode(spans: Sequence[NativeSpan], resource: Mapping[str, Value]) -> trace_service_pb2.ExportTraceServiceRequest:
    """Return the export request for a batch."""
    encoded = [
        trace_pb2.Span(
            name=span.name,
            trace_id=span.trace_id,
            span_id=span.span_id,
            parent_span_id=span.parent_span_id or b"",
            kind=_KINDS[span.kind],
            start_time_unix_nano=span.start_unix_ns,
            end_time_unix_nano=span.end_unix_ns,
            status=trace_pb2.Status(code=trace_pb2.Status.STATUS_CODE_ERROR, message=span.error)
            if span.error
            else None,
            attributes=attributes(span.attributes.items()),
        )
        for span in spans
    ]
    scope = trace_pb2.ScopeSpans(scope=common_pb2.InstrumentationScope(name="meshwright.dataplane"), spans=encoded)
    owner = resource_pb2.Resource(attributes=attributes(resource.items()))
    return trace_service_pb2.ExportTraceServiceRequest(
        resource_spans=[trace_pb2.ResourceSpans(resource=owner, scope_spans=[scope])]
    )


def attributes(pairs: Iterable[tuple[str, Value]]) -> list[common_pb2.KeyValue]:
    """Return OTLP attributes."""
    return [common_pb2.KeyValue(key=key, value=_any(value)) for key, value in pairs]


def _any(value: Value) -> common_pb2.AnyValue:
    match value:
        case bool():
            return common_pb2.AnyValue(bool_value=value)
        case int():
            return common_pb2.AnyValue(int_value=value)
        case float():
            return common_pb2.AnyValue(double_value=value)
    return common_pb2.AnyValue(string_value=value)
