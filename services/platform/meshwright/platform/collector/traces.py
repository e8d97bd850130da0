"""The last N traces, in memory. A trace is as new as its newest span; the oldest goes when the limit is reached."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

from meshwright.api.collector.v1 import collector_pb2 as pb
from meshwright.platform.collector import values

SPANS_IN_TRACE = 2000  # a client that never ends its trace must not fill the memory with it

_STATUS = ("unset", "ok", "error")


@dataclass(slots=True)
class _Trace:
    spans: list[tuple[Resource, OtlpSpan]] = field(default_factory=list)


class TraceStore:
    """Spans by trace id (bytes), as they arrived; they are only turned into answers when somebody asks."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._traces: OrderedDict[bytes, _Trace] = OrderedDict()
        self.received = self.evicted = 0

    def __len__(self) -> int:
        """Return how many traces are kept."""
        return len(self._traces)

    def add(self, batch: ResourceSpans) -> None:
        """Keep the spans of one resource; spans without a valid trace id are not spans (OTLP requires 16 bytes)."""
        for scope in batch.scope_spans:
            for span in scope.spans:
                if len(span.trace_id) != 16:
                    continue
                self.received += 1
                trace = self._traces.setdefault(span.trace_id, _Trace())
                self._traces.move_to_end(span.trace_id)
                if len(trace.spans) < SPANS_IN_TRACE:
                    trace.spans.append((batch.resource, span))
        while len(self._traces) > self._limit:
            self._traces.popitem(last=False)
            self.evicted += 1

    def find(
        self, *, trace_id: str = "", attributes: Mapping[str, str] | None = None, span_name: str = ""
    ) -> Iterator[pb.Trace]:
        """Yield the traces that have one span with this name and all these attributes, newest first."""
        if trace_id:
            key = bytes.fromhex(trace_id)
            candidates = [key] if key in self._traces else []
        else:
            candidates = list(reversed(self._traces))
        for key in candidates:
            trace = self._traces.get(key)
            if trace and any(
                (not span_name or span.name == span_name)
                and values.matches(attributes or {}, span.attributes, resource.attributes)
                for resource, span in trace.spans
            ):
                yield self._answer(key, trace)

    @staticmethod
    def _answer(key: bytes, trace: _Trace) -> pb.Trace:
        spans = sorted(trace.spans, key=lambda pair: pair[1].start_time_unix_nano)
        return pb.Trace(trace_id=key.hex(), spans=[_span(resource, span) for resource, span in spans])


def _span(resource: Resource, span: OtlpSpan) -> pb.Span:
    about = values.attributes(resource.attributes)
    return pb.Span(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_span_id=span.parent_span_id.hex(),
        name=span.name,
        service=about.get("service.name", ""),
        kind=OtlpSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        start_unix_nano=span.start_time_unix_nano,
        end_unix_nano=span.end_time_unix_nano,
        attributes=values.attributes(span.attributes),
        resource=about,
        status=_STATUS[span.status.code] if span.status.code < len(_STATUS) else str(span.status.code),
        status_message=span.status.message,
        links=[pb.Span.Link(trace_id=link.trace_id.hex(), span_id=link.span_id.hex()) for link in span.links],
    )
