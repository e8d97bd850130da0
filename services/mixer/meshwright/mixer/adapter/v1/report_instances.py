"""Instances that tell of a request: the templates of variety REPORT, evaluated.

An instance exists only if all its expressions found something. `instance` is its name in configuration,
`name.namespace`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address

from meshwright.mixer.adapter.v1.values import Origin, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """Template logentry: one line of a log."""

    instance: str
    origin: Origin
    timestamp: datetime
    severity: str = ""
    variables: Mapping[str, Value] = field(default_factory=dict)
    monitored_resource_type: str = ""
    monitored_resource_dimensions: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """Template metric: a measured value."""

    instance: str
    origin: Origin
    value: int | float | timedelta
    dimensions: Mapping[str, Value] = field(default_factory=dict)
    monitored_resource_type: str = ""
    monitored_resource_dimensions: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSpan:
    """Template tracespan: one side of a request. Identifiers are text as the request's headers carried them."""

    instance: str
    origin: Origin
    start_time: datetime
    end_time: datetime
    trace_id: str = ""
    span_id: str = ""
    parent_span_id: str = ""
    span_name: str = ""
    span_tags: Mapping[str, Value] = field(default_factory=dict)
    http_status_code: int = 0
    client_span: bool = False
    rewrite_client_span_id: bool = False
    source_name: str = ""
    source_ip: IPv4Address | IPv6Address | None = None
    destination_name: str = ""
    destination_ip: IPv4Address | IPv6Address | None = None
    request_size: int = 0
    request_total_size: int = 0
    response_size: int = 0
    response_total_size: int = 0
    api_protocol: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """Template edge: one workload has called another."""

    instance: str
    origin: Origin
    timestamp: datetime
    source_uid: str = ""
    source_owner: str = ""
    source_workload_name: str = ""
    source_workload_namespace: str = ""
    destination_uid: str = ""
    destination_owner: str = ""
    destination_workload_name: str = ""
    destination_workload_namespace: str = ""
    destination_service_name: str = ""
    destination_service_namespace: str = ""
    context_protocol: str = ""
    api_protocol: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportNothing:
    """Template reportnothing: that there was a request, and its origin."""

    instance: str
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """Template otlp: telemetry of one resource as it came by OTLP.

    `signal` is traces, metrics or logs, `payload` the bytes of its Export…ServiceRequest.
    """

    instance: str
    origin: Origin
    signal: str
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class GenericEntry:
    """An instance of a report template that was added by its descriptor; fields of messages and maps are `name.KEY`."""

    instance: str
    origin: Origin
    template: str
    fields: Mapping[str, Value] = field(default_factory=dict)


Entry = LogEntry | Metric | TraceSpan | Edge | ReportNothing | Telemetry | GenericEntry
"""One thing to report."""
