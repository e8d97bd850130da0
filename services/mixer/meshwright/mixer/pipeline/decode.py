"""Records as the engine made them → entries as adapters take them, each with the handler that it is for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from meshwright.api.istio.mixer.v1 import attributes_pb2
from meshwright.api.mixer.v1 import record_pb2
from meshwright.mixer.adapter.v1 import Entry, LogEntry, Metric, Origin, Value

REDELIVERED = "meshwright.redelivered"
RECORD_ID = "meshwright.record.id"
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)  # an expression's way to say that there is no time


def entries(record: record_pb2.Record, *, redelivered: bool) -> list[tuple[str, Entry]]:
    """(handler, entry) of every emission whose template this version knows; metrics without a value are left out."""
    attributes = {name: value(each) for name, each in record.attributes.attributes.items()}
    attributes[RECORD_ID] = record.id
    if redelivered:
        attributes[REDELIVERED] = True
    origin = Origin(
        record_id=record.id,
        redelivered=redelivered,
        time=record.time.ToDatetime(UTC),
        trace_id=record.trace_id,
        span_id=record.span_id,
        reporter=record.reporter,
        attributes=attributes,
    )
    found: list[tuple[str, Entry]] = []
    for emission in record.emissions:
        fields = {name: value(each) for name, each in emission.fields.items()}
        entry = _entry(emission.template, emission.instance, origin, fields)
        if entry is not None:
            found.append((emission.handler, entry))
    return found


def value(given: attributes_pb2.Attributes.AttributeValue) -> Value:
    """One attribute as Python has it; bytes of an address's length are an address, as the engine sends no others."""
    kind = given.WhichOneof("value")
    match kind:
        case None:
            return ""
        case "timestamp_value":
            return given.timestamp_value.ToDatetime(UTC)
        case "duration_value":
            duration = given.duration_value
            return timedelta(seconds=duration.seconds, microseconds=duration.nanos / 1000)
        case "bytes_value":
            octets = given.bytes_value
            return ip_address(octets) if len(octets) in (4, 16) else octets
        case "string_map_value":
            return dict(given.string_map_value.entries)
        case _:
            plain: str | int | float | bool = getattr(given, kind)
            return plain


def _entry(template: str, instance: str, origin: Origin, fields: Mapping[str, Value]) -> Entry | None:
    resource_type = fields.get("monitored_resource_type", "")
    resource = {"monitored_resource_type": str(resource_type)}
    dimensions = _part("monitored_resource_dimensions", fields)
    if template == "logentry":
        timestamp = fields.get("timestamp")
        return LogEntry(
            instance=instance,
            origin=origin,
            timestamp=timestamp if isinstance(timestamp, datetime) and timestamp > _NEVER else origin.time,
            severity=str(fields.get("severity", "")),
            variables=_part("variables", fields),
            monitored_resource_dimensions=dimensions,
            **resource,
        )
    measured = fields.get("value")
    if template == "metric" and isinstance(measured, int | float | timedelta):
        return Metric(
            instance=instance,
            origin=origin,
            value=measured,
            dimensions=_part("dimensions", fields),
            monitored_resource_dimensions=dimensions,
            **resource,
        )
    return None


def _part(name: str, fields: Mapping[str, Value]) -> dict[str, Value]:
    prefix = f"{name}."
    return {field.removeprefix(prefix): each for field, each in fields.items() if field.startswith(prefix)}
