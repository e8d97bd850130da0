"""Trace spans → one OTLP traces request."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from meshwright.mixer.adapter.v1 import TraceSpan, Value
from meshwright.mixer.adapters.opentelemetry import values
from meshwright.mixer.adapters.span_ids import ids


def request(entries: Sequence[TraceSpan], instance: str) -> ExportTraceServiceRequest | None:
    """One request for all spans of a batch that belong to a trace; None when there is none."""
    spans = [made for entry in entries if (made := _span(entry)) is not None]
    if not spans:
        return None
    return ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(resource=values.resource(instance), scope_spans=[ScopeSpans(scope=values.SCOPE, spans=spans)])
        ]
    )


def _span(entry: TraceSpan) -> Span | None:
    found = ids(entry)
    if found is None:
        return None
    trace, own, parent = found
    given: dict[str, Value] = {**entry.span_tags, **values.marks([entry.origin])}
    ours, theirs = ("source", "destination") if entry.client_span else ("destination", "source")
    peer_name, peer_address = getattr(entry, f"{theirs}_name"), getattr(entry, f"{theirs}_ip")
    own_name = getattr(entry, f"{ours}_name")
    for name, value in (
        ("http.response.status_code", entry.http_status_code),
        ("http.request.body.size", entry.request_size),
        ("http.request.size", entry.request_total_size),
        ("http.response.body.size", entry.response_size),
        ("http.response.size", entry.response_total_size),
        ("network.protocol.name", entry.api_protocol),
        ("meshwright.workload", own_name),
        ("peer.service", peer_name),
        ("network.peer.address", "" if peer_address is None else str(peer_address)),
    ):
        if value:
            given.setdefault(name, value)
    made = Span(
        trace_id=bytes.fromhex(trace),
        span_id=bytes.fromhex(own),
        parent_span_id=bytes.fromhex(parent),
        name=entry.span_name or "request",
        kind=Span.SPAN_KIND_CLIENT if entry.client_span else Span.SPAN_KIND_SERVER,
        start_time_unix_nano=values.nanoseconds(entry.start_time),
        end_time_unix_nano=values.nanoseconds(entry.end_time),
        attributes=values.attributes(given),
    )
    # A server's 4xx is the client's fault, a client's is its own (HTTP semantic conventions, "Status").
    if entry.http_status_code >= (400 if entry.client_span else 500):
        made.status.code = Status.STATUS_CODE_ERROR
    return made
