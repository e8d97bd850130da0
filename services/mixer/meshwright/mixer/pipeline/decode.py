"""Records as the engine made them → entries as adapters take them, each with the handler that it is for."""

from __future__ import annotations

from datetime import UTC, timedelta
from ipaddress import ip_address

from meshwright.api.istio.mixer.v1 import attributes_pb2
from meshwright.api.mixer.v1 import record_pb2
from meshwright.mixer.adapter.v1 import Entry, Origin, Value, templates

REDELIVERED = "meshwright.redelivered"
RECORD_ID = "meshwright.record.id"


def entries(record: record_pb2.Record, *, redelivered: bool) -> list[tuple[str, Entry]]:
    """(handler, entry) of every emission; metrics without a value and spans without times are left out."""
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
        if emission.template == "otlp":
            fields = {"signal": attributes.get("otlp.signal", ""), "payload": record.otlp}
        entry = templates.entry(emission.template, emission.instance, origin, fields)
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
