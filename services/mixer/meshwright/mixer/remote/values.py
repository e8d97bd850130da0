"""How values of expressions stand in messages: for each type of field the types that fit, and its wire form."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from meshwright.api.policy.v1 import remote_pb2 as pb
from meshwright.mixer.cexl import ValueType

TEXT = frozenset({ValueType.STRING})
ANY = frozenset(ValueType)

_PLAIN = {
    FieldDescriptor.TYPE_STRING: (pb.TEXT, TEXT),
    FieldDescriptor.TYPE_BYTES: (pb.OCTETS, frozenset({ValueType.STRING, ValueType.IP_ADDRESS})),
    FieldDescriptor.TYPE_BOOL: (pb.BOOLEAN, frozenset({ValueType.BOOL})),
    FieldDescriptor.TYPE_DOUBLE: (pb.DOUBLE_BITS, frozenset({ValueType.DOUBLE})),
    FieldDescriptor.TYPE_FLOAT: (pb.FLOAT_BITS, frozenset({ValueType.DOUBLE})),
    FieldDescriptor.TYPE_INT64: (pb.VARINT, frozenset({ValueType.INT64})),
    FieldDescriptor.TYPE_UINT64: (pb.VARINT, frozenset({ValueType.INT64})),
    FieldDescriptor.TYPE_INT32: (pb.VARINT, frozenset({ValueType.INT64})),
    FieldDescriptor.TYPE_UINT32: (pb.VARINT, frozenset({ValueType.INT64})),
    FieldDescriptor.TYPE_SINT64: (pb.ZIGZAG, frozenset({ValueType.INT64})),
    FieldDescriptor.TYPE_SINT32: (pb.ZIGZAG, frozenset({ValueType.INT64})),
    FieldDescriptor.TYPE_FIXED64: (pb.FIXED64, frozenset({ValueType.INT64})),
    FieldDescriptor.TYPE_SFIXED64: (pb.FIXED64, frozenset({ValueType.INT64})),
    FieldDescriptor.TYPE_FIXED32: (pb.FIXED32, frozenset({ValueType.INT64})),
    FieldDescriptor.TYPE_SFIXED32: (pb.FIXED32, frozenset({ValueType.INT64})),
}
_POLICY = "istio.policy.v1beta1"
_MESSAGES = {
    "google.protobuf.Timestamp": (pb.MOMENT, ValueType.TIMESTAMP),
    "google.protobuf.Duration": (pb.SPAN, ValueType.DURATION),
    f"{_POLICY}.TimeStamp": (pb.BOXED_MOMENT, ValueType.TIMESTAMP),
    f"{_POLICY}.Duration": (pb.BOXED_SPAN, ValueType.DURATION),
    f"{_POLICY}.IPAddress": (pb.BOXED_OCTETS, ValueType.IP_ADDRESS),
    f"{_POLICY}.StringMap": (pb.BOXED_ENTRIES, ValueType.STRING_MAP),
    f"{_POLICY}.DNSName": (pb.BOXED_TEXT, ValueType.DNS_NAME),
    f"{_POLICY}.EmailAddress": (pb.BOXED_TEXT, ValueType.EMAIL_ADDRESS),
    f"{_POLICY}.Uri": (pb.BOXED_TEXT, ValueType.URI),
}
_ALONE = {
    pb.TEXT: ValueType.STRING,
    pb.OCTETS: ValueType.STRING,
    pb.BOOLEAN: ValueType.BOOL,
    pb.DOUBLE_BITS: ValueType.DOUBLE,
    pb.FLOAT_BITS: ValueType.DOUBLE,
}

Form = tuple["pb.Wire", frozenset[ValueType]]


def form(field: Any) -> Form | None:
    """How one value of this field stands on the wire and which types it takes; None when it takes no expression."""
    if field.message_type is None:
        return _PLAIN.get(field.type)
    name = field.message_type.full_name
    if name == f"{_POLICY}.Value":
        return pb.ANY_VALUE, ANY
    if name not in _MESSAGES:
        return None
    wire, kind = _MESSAGES[name]
    return wire, frozenset({kind})


def result_type(field: Any) -> tuple[pb.Wire, ValueType] | None:
    """Wire form and type of an output's field; None when no attribute can have its value."""
    if is_map(field):
        entry = field.message_type.fields_by_name
        texts = entry["key"].type == entry["value"].type == FieldDescriptor.TYPE_STRING
        return (pb.ENTRIES, ValueType.STRING_MAP) if texts else None
    if field.is_repeated:
        return None
    found = form(field)
    if found is None or found[0] == pb.ANY_VALUE:
        return None
    wire, kinds = found
    return wire, next(iter(kinds)) if len(kinds) == 1 else _ALONE[wire]


def is_map(field: Any) -> bool:
    """Whether the field is a map."""
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)
