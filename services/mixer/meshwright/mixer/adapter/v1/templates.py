"""Template names → instance classes: evaluated fields become the typed instance that a handler's method takes.

One decision to know: fields arrive flat, those of a message or of a map as `name.KEY`, and what an instance doesn't set
doesn't arrive; so a template grows without breaking adapters that were written before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from meshwright.mixer.adapter.v1 import check_instances as check
from meshwright.mixer.adapter.v1 import report_instances as report
from meshwright.mixer.adapter.v1.values import Origin, Value

Fields = Mapping[str, Value]
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)  # an expression's way to say that there is no time


def part(name: str, fields: Fields) -> dict[str, Value]:
    """The fields below `name`: of a map its entries by key."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): each for key, each in fields.items() if key.startswith(prefix)}


def question(template: str, instance: str, fields: Fields) -> Any:
    """The instance that a check, quota or generate method gets."""
    build = _QUESTIONS.get(template)
    if build is None:
        return check.Generic(instance=instance, template=template, fields=fields)
    return build(instance, fields)


def entry(template: str, instance: str, origin: Origin, fields: Fields) -> report.Entry | None:
    """What a report method gets in its batch; None for a metric or span that lacks what makes it one."""
    build = _ENTRIES.get(template)
    if build is None:
        return report.GenericEntry(instance=instance, origin=origin, template=template, fields=fields)
    return build(instance, origin, fields)


def name_of(instance: Any) -> str:
    """The template that an instance is of."""
    given: str = getattr(instance, "template", "") or _NAMES.get(type(instance), "")
    return given


def _list_entry(instance: str, fields: Fields) -> check.ListEntry:
    value: Any = fields.get("value", "")
    return check.ListEntry(instance=instance, value=value)


def _authorization(instance: str, fields: Fields) -> check.Authorization:
    return check.Authorization(
        instance=instance,
        subject=check.Subject(
            user=_text(fields, "subject.user"),
            groups=_text(fields, "subject.groups"),
            properties=part("subject.properties", fields),
        ),
        action=check.Action(
            namespace=_text(fields, "action.namespace"),
            service=_text(fields, "action.service"),
            method=_text(fields, "action.method"),
            path=_text(fields, "action.path"),
            properties=part("action.properties", fields),
        ),
    )


def _api_key(instance: str, fields: Fields) -> check.ApiKey:
    return check.ApiKey(
        instance=instance,
        api=_text(fields, "api"),
        api_version=_text(fields, "api_version"),
        api_operation=_text(fields, "api_operation"),
        api_key=_text(fields, "api_key"),
        timestamp=_time(fields, "timestamp"),
    )


def _quota(instance: str, fields: Fields) -> check.Quota:
    """The engine names dimensions alone, as they are all that the template has."""
    return check.Quota(instance=instance, dimensions=part("dimensions", fields) or dict(fields))


def _kubernetes(instance: str, fields: Fields) -> check.Kubernetes:
    port: Any = fields.get("destination_port", 0)
    return check.Kubernetes(
        instance=instance,
        source_uid=_text(fields, "source_uid"),
        source_ip=_address(fields, "source_ip"),
        destination_uid=_text(fields, "destination_uid"),
        destination_ip=_address(fields, "destination_ip"),
        destination_port=port,
    )


def _log_entry(instance: str, origin: Origin, fields: Fields) -> report.LogEntry:
    return report.LogEntry(
        instance=instance,
        origin=origin,
        timestamp=_time(fields, "timestamp") or origin.time,
        severity=_text(fields, "severity"),
        variables=part("variables", fields),
        monitored_resource_type=_text(fields, "monitored_resource_type"),
        monitored_resource_dimensions=part("monitored_resource_dimensions", fields),
    )


def _metric(instance: str, origin: Origin, fields: Fields) -> report.Metric | None:
    value: Any = fields.get("value")
    if value is None:
        return None
    return report.Metric(
        instance=instance,
        origin=origin,
        value=value,
        dimensions=part("dimensions", fields),
        monitored_resource_type=_text(fields, "monitored_resource_type"),
        monitored_resource_dimensions=part("monitored_resource_dimensions", fields),
    )


def _trace_span(instance: str, origin: Origin, fields: Fields) -> report.TraceSpan | None:
    start, end = _time(fields, "start_time"), _time(fields, "end_time")
    if start is None or end is None:
        return None
    plain: dict[str, Any] = {name: each for name, each in fields.items() if name in _SPAN}
    plain |= {"start_time": start, "end_time": end, "http_status_code": fields.get("httpStatusCode", 0)}
    return report.TraceSpan(
        instance=instance,
        origin=origin,
        span_tags=part("span_tags", fields),
        source_ip=_address(fields, "source_ip"),
        destination_ip=_address(fields, "destination_ip"),
        **plain,
    )


def _edge(instance: str, origin: Origin, fields: Fields) -> report.Edge:
    plain: dict[str, Any] = {name: each for name, each in fields.items() if name in _EDGE}
    return report.Edge(instance=instance, origin=origin, timestamp=_time(fields, "timestamp") or origin.time, **plain)


def _telemetry(instance: str, origin: Origin, fields: Fields) -> report.Telemetry | None:
    """Single spans and log records carry no request of their own."""
    payload = fields.get("payload")
    if not isinstance(payload, bytes) or not payload:
        return None
    return report.Telemetry(instance=instance, origin=origin, signal=_text(fields, "signal"), payload=payload)


def _text(fields: Fields, name: str) -> str:
    return str(fields.get(name, ""))


def _time(fields: Fields, name: str) -> datetime | None:
    given = fields.get(name)
    return given if isinstance(given, datetime) and given > _NEVER else None


def _address(fields: Fields, name: str) -> check.Address | None:
    given: Any = fields.get(name)
    return None if given in (None, "", b"") else given


_SPAN = frozenset(report.TraceSpan.__slots__) - {"instance", "origin", "span_tags", "source_ip", "destination_ip"}
_EDGE = frozenset(report.Edge.__slots__) - {"instance", "origin", "timestamp"}

_QUESTIONS: Mapping[str, Callable[[str, Fields], Any]] = {
    "checknothing": lambda instance, _: check.CheckNothing(instance=instance),
    "listentry": _list_entry,
    "authorization": _authorization,
    "apikey": _api_key,
    "quota": _quota,
    "kubernetes": _kubernetes,
}
_ENTRIES: Mapping[str, Callable[[str, Origin, Fields], report.Entry | None]] = {
    "logentry": _log_entry,
    "metric": _metric,
    "tracespan": _trace_span,
    "edge": _edge,
    "otlp": _telemetry,
    "reportnothing": lambda instance, origin, _: report.ReportNothing(instance=instance, origin=origin),
}

_NAMES: Mapping[type, str] = {
    check.CheckNothing: "checknothing",
    check.ListEntry: "listentry",
    check.Authorization: "authorization",
    check.ApiKey: "apikey",
    check.Quota: "quota",
    check.Kubernetes: "kubernetes",
    report.LogEntry: "logentry",
    report.Metric: "metric",
    report.TraceSpan: "tracespan",
    report.Edge: "edge",
    report.Telemetry: "otlp",
    report.ReportNothing: "reportnothing",
}
