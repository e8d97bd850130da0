"""Values of entries in OTLP's terms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue, KeyValueList
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from meshwright.mixer.adapter.v1 import Origin, Value

SCOPE = InstrumentationScope(name="meshwright.mixer.adapters.opentelemetry")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def resource(instance: str) -> Resource:
    """Who exports: this mixer replica."""
    return Resource(
        attributes=attributes(
            {
                "service.name": "meshwright-mixer",
                "service.namespace": "meshwright",
                "service.instance.id": instance,
            }
        )
    )


def attributes(values: Mapping[str, Value]) -> list[KeyValue]:
    """Attributes in the order of their names, so that equal sets are equal bytes."""
    return [KeyValue(key=key, value=any_value(values[key])) for key in sorted(values)]


def any_value(value: Value) -> AnyValue:
    """A duration becomes seconds, a moment RFC 3339 text, an address its usual text."""
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case str():
            return AnyValue(string_value=value)
        case bytes():
            return AnyValue(bytes_value=value)
        case timedelta():
            return AnyValue(double_value=value.total_seconds())
        case datetime():
            return AnyValue(string_value=value.astimezone(UTC).isoformat())
        case Mapping():
            return AnyValue(kvlist_value=KeyValueList(values=attributes(value)))
        case _:
            return AnyValue(string_value=str(value))


def marks(origins: Iterable[Origin]) -> dict[str, Value]:
    """The attribute that tells possible duplicates, when there is one among the origins."""
    return {"meshwright.redelivered": True} if any(origin.redelivered for origin in origins) else {}


def nanoseconds(moment: datetime) -> int:
    """Nanoseconds since the epoch."""
    return max(0, (moment - _EPOCH) // timedelta(microseconds=1) * 1000)
