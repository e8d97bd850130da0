"""Template tracespan: one span of a trace, as a proxy saw it."""

from __future__ import annotations

from meshwright.mixer.cexl.types import ValueType
from meshwright.mixer.templates.template import Template, Variety, many, one, text

TEMPLATE = Template(
    "tracespan",
    Variety.REPORT,
    (
        *text("trace_id", "span_id", "parent_span_id", "span_name"),
        one("start_time", ValueType.TIMESTAMP),
        one("end_time", ValueType.TIMESTAMP),
        many("span_tags"),
        one("http_status_code", ValueType.INT64),
        one("client_span", ValueType.BOOL),
        one("rewrite_client_span_id", ValueType.BOOL),
        *text("source_name"),
        one("source_ip", ValueType.IP_ADDRESS),
        *text("destination_name"),
        one("destination_ip", ValueType.IP_ADDRESS),
        one("request_size", ValueType.INT64),
        one("request_total_size", ValueType.INT64),
        one("response_size", ValueType.INT64),
        one("response_total_size", ValueType.INT64),
        *text("api_protocol"),
    ),
)
