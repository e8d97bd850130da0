"""Runs an encoding plan in Python, for report instances: what Rust does for each request, here once a batch."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address

from meshwright.api.policy.v1 import remote_pb2 as pb
from meshwright.mixer.adapter.v1 import Value
from meshwright.mixer.remote.encoding import tag, varint

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BOXES: dict[int, int] = {
    pb.BOXED_MOMENT: pb.MOMENT,
    pb.BOXED_SPAN: pb.SPAN,
    pb.BOXED_OCTETS: pb.OCTETS,
    pb.BOXED_ENTRIES: pb.ENTRIES,
    pb.BOXED_TEXT: pb.TEXT,
}
_MEMBERS: dict[int, int | tuple[int, int]] = {
    1: pb.TEXT, 2: pb.VARINT, 3: pb.DOUBLE_BITS, 4: pb.BOOLEAN, 6: (5, pb.BOXED_OCTETS), 5: (6, pb.BOXED_MOMENT),
    10: (7, pb.BOXED_SPAN), 7: (8, pb.BOXED_TEXT), 9: (9, pb.BOXED_TEXT), 8: (10, pb.BOXED_TEXT), 11: pb.BOXED_ENTRIES,
}  # fmt: skip
"""By the type's number: the member's number in a Value where it isn't the same, and its wire form."""


def instance(plan: pb.Encoding, fields: Mapping[str, Value]) -> bytes:
    """One evaluated instance as a field of its request."""
    message, _ = _message(plan.pieces, fields)
    return _delimited(plan.instance, message)


def request(plan: pb.Encoding, instances: Iterable[bytes], config: bytes, dedup_id: str) -> bytes:
    """A report's request; all instances are of one template."""
    out = bytearray().join(instances)
    if plan.adapter_config and config:
        out += _delimited(plan.adapter_config, config)
    if plan.dedup_id:
        out += _delimited(plan.dedup_id, dedup_id.encode())
    return bytes(out)


def _message(pieces: Iterable[pb.Piece], fields: Mapping[str, Value]) -> tuple[bytes, bool]:
    """The bytes, and whether every value was there."""
    out, is_whole = bytearray(), True
    for piece in pieces:
        match piece.WhichOneof("piece"):
            case "literal":
                out += piece.literal
            case "scalar":
                scalar = piece.scalar
                value = fields.get(scalar.field)
                written = None if value is None else _scalar(scalar.number, scalar.wire, scalar.type, value)
                is_whole = is_whole and written is not None
                out += written or b""
            case "nested":
                inner, is_complete = _message(piece.nested.pieces, fields)
                if is_complete or not piece.nested.is_entry:
                    out += _delimited(piece.nested.number, inner)
    return bytes(out), is_whole


def _scalar(number: int, wire: int, kind: int, value: Value) -> bytes | None:
    """One field; None when the value isn't of its type."""
    if wire in _BOXES:
        inner = _scalar(1, _BOXES[wire], 0, value)
        return None if inner is None else _delimited(number, inner)
    if wire == pb.ANY_VALUE:
        member = _MEMBERS.get(kind)
        if member is None:
            return None
        inside, form = member if isinstance(member, tuple) else (kind, member)
        inner = _scalar(inside, form, 0, value)
        return None if inner is None else _delimited(number, inner)
    match value:
        case bool():
            return tag(number, _VARINT) + varint(int(value)) if wire == pb.BOOLEAN else None
        case int():
            return _integer(number, wire, value)
        case float() if wire == pb.DOUBLE_BITS:
            return tag(number, _FIXED64) + struct.pack("<d", value)
        case float() if wire == pb.FLOAT_BITS:
            return tag(number, _FIXED32) + struct.pack("<f", value)
        case str() if wire in (pb.TEXT, pb.OCTETS):
            return _delimited(number, value.encode())
        case bytes() if wire == pb.OCTETS:
            return _delimited(number, value)
        case IPv4Address() | IPv6Address() if wire == pb.OCTETS:
            return _delimited(number, value.packed)
        case datetime() if wire == pb.MOMENT:
            return _delimited(number, _time((value - _EPOCH) // timedelta(microseconds=1)))
        case timedelta() if wire == pb.SPAN:
            return _delimited(number, _time(value // timedelta(microseconds=1), is_span=True))
        case Mapping() if wire == pb.ENTRIES:
            entries = (_delimited(1, key.encode()) + _delimited(2, each.encode()) for key, each in value.items())
            return b"".join(_delimited(number, entry) for entry in entries)
    return None


def _integer(number: int, wire: int, value: int) -> bytes | None:
    match wire:
        case pb.VARINT:
            return tag(number, _VARINT) + varint(value)
        case pb.ZIGZAG:
            return tag(number, _VARINT) + varint(value << 1 ^ value >> 63)
        case pb.FIXED64:
            return tag(number, _FIXED64) + struct.pack("<Q", value & (1 << 64) - 1)
        case pb.FIXED32:
            return tag(number, _FIXED32) + struct.pack("<I", value & (1 << 32) - 1)
    return None


def _time(micros: int, *, is_span: bool = False) -> bytes:
    """Seconds and nanoseconds; those of a span have its sign, those of a moment are never negative."""
    seconds, rest = divmod(micros, 1_000_000)
    if is_span and seconds < 0 and rest:
        seconds, rest = seconds + 1, rest - 1_000_000
    return tag(1, _VARINT) + varint(seconds) + tag(2, _VARINT) + varint(rest * 1000)


def _delimited(number: int, content: bytes) -> bytes:
    return tag(number, _LENGTH) + varint(len(content)) + content
