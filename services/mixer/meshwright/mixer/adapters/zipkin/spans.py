"""A trace span → Zipkin's JSON, and which traces are kept."""

from __future__ import annotations

from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from meshwright.mixer.adapter.v1 import TraceSpan
from meshwright.mixer.adapters.plain import text
from meshwright.mixer.adapters.span_ids import hexadecimal, ids

_MICROSECOND = timedelta(microseconds=1)


def is_sampled(trace_id: str, probability: float) -> bool:
    """Whether the trace is kept: the same answer for all its spans, in every replica."""
    trace = hexadecimal(trace_id, 16, 32)
    return bool(trace) and int(trace[-16:], 16) < probability * 2**64


def span(entry: TraceSpan) -> dict[str, Any] | None:
    """The span; None when it belongs to no trace."""
    found = ids(entry)
    if found is None:
        return None
    trace, own, parent = found
    tags = {name: text(value) for name, value in entry.span_tags.items()}
    if entry.http_status_code:
        tags["http.status_code"] = str(entry.http_status_code)
    for name, size in (
        ("request.size", entry.request_size),
        ("request.total_size", entry.request_total_size),
        ("response.size", entry.response_size),
        ("response.total_size", entry.response_total_size),
    ):
        if size:
            tags[name] = str(size)
    if entry.origin.redelivered:
        tags["meshwright.redelivered"] = "true"
    source = _endpoint(entry.source_name, entry.source_ip)
    destination = _endpoint(entry.destination_name, entry.destination_ip)
    began = _microseconds(entry.start_time)
    made: dict[str, Any] = {
        "traceId": trace,
        "id": own,
        "name": entry.span_name or "request",
        "kind": "CLIENT" if entry.client_span else "SERVER",
        "timestamp": began,
        "duration": max(1, _microseconds(entry.end_time) - began),
        "localEndpoint": source if entry.client_span else destination,
        "remoteEndpoint": destination if entry.client_span else source,
        "tags": tags,
    }
    if parent:
        made["parentId"] = parent
    if not entry.rewrite_client_span_id and not entry.client_span:
        made["shared"] = True
    return made


def _endpoint(name: str, address: IPv4Address | IPv6Address | None) -> dict[str, str]:
    endpoint = {"serviceName": name} if name else {}
    if address is not None:
        endpoint["ipv4" if address.version == 4 else "ipv6"] = str(address)
    return endpoint


def _microseconds(moment: datetime) -> int:
    return max(0, round(moment.timestamp() * 1e6) if moment.tzinfo else 0)
