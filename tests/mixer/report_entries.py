"""Trace spans for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

from meshwright.mixer.adapter.v1 import TraceSpan
from meshwright.mixer.plugintest import origin

TRACE, SPAN, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"
BEGAN = datetime(2026, 11, 21, 12, 0, 0, 250_000, tzinfo=UTC)


def trace_span(**given: Any) -> TraceSpan:
    fields: dict[str, Any] = {
        "instance": "span.default",
        "origin": origin(),
        "start_time": BEGAN,
        "end_time": BEGAN + timedelta(milliseconds=30),
        "trace_id": TRACE,
        "span_id": SPAN,
        "parent_span_id": PARENT,
        "span_name": "GET /cart",
        "span_tags": {"http.method": "GET", "retried": False},
        "http_status_code": 200,
        "source_name": "shop",
        "source_ip": ip_address("10.0.0.1"),
        "destination_name": "cart",
        "destination_ip": ip_address("fd00::2"),
        "request_size": 12,
        "api_protocol": "http",
    }
    return TraceSpan(**{**fields, **given})
