"""Compiles an instance's parameters into a plan: which bytes its request begins with, and which values go where.

One decision to know: everything whose bytes are known now (names, keys of maps, enums) is written now; what is left for
each request is values, in the order of the plan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import any_pb2, json_format, message_factory
from google.protobuf.descriptor import FieldDescriptor
from pydantic.alias_generators import to_snake

from meshwright.api.policy.v1 import remote_pb2 as pb
from meshwright.mixer.cexl import ValueType
from meshwright.mixer.remote import values
from meshwright.mixer.remote.templates import NAME, RemoteTemplate

MAX_DEPTH = 16
MAX_FIELDS = 512

Path = tuple[str | int, ...]
Evaluate = Callable[[str, Path, str, frozenset[ValueType]], ValueType | None]
"""Compiles an expression: the field's name, where it stands in `params`, its text, and the types that fit.

Returns the type that it has, or None when it was refused.
"""
Refuse = Callable[[Path, str], None]

_VARINT, _LENGTH = 0, 2
_KEYS = frozenset(
    (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_UINT32)
)


def encode(
    template: RemoteTemplate, name: str, parameters: Mapping[str, Any], evaluate: Evaluate, refuse: Refuse
) -> pb.Encoding:
    """Plan an instance; `name` is what the adapter knows it by. What is refused has been told by then."""
    plan = pb.Encoding(
        method=template.method,
        name=name,
        instance=template.instance_field,
        adapter_config=template.request.get("adapter_config", 0),
        dedup_id=template.request.get("dedup_id", 0),
        quota_request=template.request.get("quota_request", 0),
        result=template.result_number,
        output=template.output_number,
    )
    text = name.encode()
    plan.pieces.add(literal=tag(NAME, _LENGTH) + varint(len(text)) + text)
    inferred = _Planner(evaluate, refuse).message(template.instance, parameters, _Place((), ()), plan.pieces)
    if template.output is not None:
        for field, (wire, kind) in template.output_fields():
            plan.outputs.add(number=field.number, name=field.name, wire=wire, type=kind.name)
    plan.inferred_types = _inferred(template.types, inferred)
    return plan


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a value stands: `names` as the engine has it, in snake case, `path` as it was written."""

    names: tuple[str, ...]
    path: Path

    def at(self, name: str | int, written: str | int | None = None) -> _Place:
        return _Place((*self.names, str(name)), (*self.path, name if written is None else written))


class _Planner:
    def __init__(self, evaluate: Evaluate, refuse: Refuse) -> None:
        self._evaluate, self._refuse = evaluate, refuse
        self._names: set[str] = set()

    def message(self, descriptor: Any, given: Any, place: _Place, pieces: Any) -> dict[str, Any]:
        """Plan a message's fields; return the types of its values by field name."""
        inferred: dict[str, Any] = {}
        if not isinstance(given, Mapping):
            self._refuse(place.path, f"must be a mapping of the fields of {descriptor.full_name}")
            return inferred
        if len(place.path) > MAX_DEPTH:
            self._refuse(place.path, f"nested deeper than {MAX_DEPTH}: flatten it")
            return inferred
        known = {each.name: each for each in descriptor.fields if each.number != NAME}
        by_camel = {each.camelcase_name: each for each in known.values()}
        found: dict[int, tuple[Any, str, Any]] = {}
        for key, value in given.items():
            target = known.get(key) or by_camel.get(key)
            if target is None:
                names = ", ".join(known) or "none: the template has no fields"
                self._refuse((*place.path, str(key)), f"unknown field: use one of {names}")
            elif target.number in found:
                self._refuse((*place.path, key), f"is {found[target.number][1]} once more: keep one of them")
            else:
                found[target.number] = target, key, value
        for _, (target, key, value) in sorted(found.items()):
            kind = self._field(target, value, place.at(to_snake(target.name), key), pieces)
            if kind is not None:
                inferred[target.name] = kind
        return inferred

    def _field(self, target: Any, value: Any, place: _Place, pieces: Any) -> Any:
        if values.is_map(target):
            return self._map(target, value, place, pieces)
        if target.is_repeated:
            if not isinstance(value, Sequence) or isinstance(value, str):
                self._refuse(place.path, "must be a list")
                return None
            for number, each in enumerate(value):
                self._one(target, target.number, each, place.at(number), pieces)
            return None
        return self._one(target, target.number, value, place, pieces)

    def _map(self, target: Any, value: Any, place: _Place, pieces: Any) -> Any:
        entry = target.message_type.fields_by_name
        if isinstance(value, str) and values.result_type(target) is not None:
            self._expression(pb.ENTRIES, frozenset({ValueType.STRING_MAP}), target.number, value, place, pieces)
            return None
        if not isinstance(value, Mapping):
            self._refuse(place.path, "must be a mapping, or where its values are text an expression of STRING_MAP")
            return None
        inferred: dict[str, Any] = {}
        for key in sorted(value, key=str):
            encoded = self._key(entry["key"], key, place)
            if encoded is None:
                continue
            nested = pieces.add().nested
            nested.number, nested.is_entry = target.number, True
            nested.pieces.add(literal=encoded)
            kind = self._one(entry["value"], 2, value[key], place.at(str(key)), nested.pieces)
            if kind is not None:
                inferred[str(key)] = kind
        return inferred or None

    def _key(self, field: Any, key: Any, place: _Place) -> bytes | None:
        if field.type == FieldDescriptor.TYPE_STRING and isinstance(key, str):
            return tag(1, _LENGTH) + varint(len(key.encode())) + key.encode()
        if field.type in _KEYS and isinstance(key, int) and not isinstance(key, bool):
            return tag(1, _VARINT) + varint(key)
        self._refuse((*place.path, str(key)), "not a key of this map: text, or whole numbers, as the template says")
        return None

    def _one(self, target: Any, number: int, value: Any, place: _Place, pieces: Any) -> Any:
        """One value or message; return its inferred type where the template leaves that open."""
        form = values.form(target)
        if form is not None:
            kind = self._expression(*form, number, value, place, pieces)
            return None if kind is None or form[0] != pb.ANY_VALUE else int(kind)
        if target.message_type is not None:
            nested = pieces.add().nested
            nested.number = number
            return self.message(target.message_type, value, place, nested.pieces) or None
        if target.enum_type is not None:
            self._enum(target, number, value, place, pieces)
            return None
        self._refuse(place.path, "a group, which can't be filled: the template's author must use a message")
        return None

    def _enum(self, target: Any, number: int, value: Any, place: _Place, pieces: Any) -> None:
        by_name = target.enum_type.values_by_name
        if isinstance(value, str) and value in by_name:
            pieces.add(literal=tag(number, _VARINT) + varint(by_name[value].number))
        elif isinstance(value, int) and not isinstance(value, bool) and value in target.enum_type.values_by_number:
            pieces.add(literal=tag(number, _VARINT) + varint(value))
        else:
            names = ", ".join(by_name)
            self._refuse(place.path, f"not a value of {target.enum_type.full_name}: use one of {names}")

    def _expression(
        self, wire: pb.Wire, kinds: frozenset[ValueType], number: int, value: Any, place: _Place, pieces: Any
    ) -> ValueType | None:
        source = _source(value)
        name = ".".join(place.names)
        if source is None:
            self._refuse(place.path, "must be an expression")
            return None
        if name in self._names or len(self._names) >= MAX_FIELDS:
            reason = "is there twice" if name in self._names else f"is one more than {MAX_FIELDS} expressions"
            self._refuse(place.path, f"{reason}: leave it out")
            return None
        self._names.add(name)
        kind = self._evaluate(name, place.path, source, kinds)
        if kind is not None:
            pieces.add(scalar=pb.Piece.Scalar(field=name, number=number, wire=wire, type=kind.name))
        return kind


def _source(value: Any) -> str | None:
    """YAML reads `value: 1` as a number and `value: true` as a truth value; both are literals of expressions too."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    return value if isinstance(value, str) and value.strip() else None


def _inferred(descriptor: Any, given: Mapping[str, Any]) -> bytes:
    """The template's Type with the types that its expressions have, in an Any; empty where there is no Type."""
    if descriptor is None:
        return b""
    known = {each.name for each in descriptor.fields}
    message = message_factory.GetMessageClass(descriptor)()
    json_format.ParseDict({name: kind for name, kind in given.items() if name in known}, message)
    content = message.SerializeToString(deterministic=True)
    blob = any_pb2.Any(type_url=f"type.googleapis.com/{descriptor.full_name}", value=content)
    return blob.SerializeToString(deterministic=True)


def tag(number: int, wire: int) -> bytes:
    """A field's key."""
    return varint(number << 3 | wire)


def varint(value: int) -> bytes:
    """A number in groups of seven bits; negative ones as 64 bits."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
