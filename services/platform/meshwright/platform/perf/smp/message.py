"""SMP messages from and to plain values, strictly: an unknown field, a wrong type or a lost digit is an error.

One decision to know: protobuf's own JSON reader is strict too, but says neither where a fault is nor what to write
instead; so values are read by the messages' descriptors here, and every error names its field and the remedy.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from meshwright.core.errors import ConfigError

M = TypeVar("M", bound=Message)

_MOST = 10_000  # entries of one list or map
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
}
_DECIMAL = re.compile(r"-?[0-9]{1,19}")


def read(message: type[M], value: Any, place: str = "") -> M:
    """Read a message from plain values; raise ConfigError for the first fault, with its place below `place`."""
    made = message()
    _fill(made, value, place)
    return made


def plain(message: Message) -> dict[str, Any]:
    """Return a message as plain values in the specification's names; what has no value is left out."""
    found: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    if "labels" in found:  # a map has no order; files that are compared want one
        found["labels"] = dict(sorted(found["labels"].items()))
    return found


def _fill(message: Message, value: Any, place: str) -> None:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{_kind(value)} where fields are expected", field=place, remedy="write a map of fields")
    fields = {field.name: field for field in message.DESCRIPTOR.fields}
    for name, content in value.items():
        here = f"{place}.{name}" if place else str(name)
        field = fields.get(str(name))
        if field is None:
            raise ConfigError(f"{message.DESCRIPTOR.name} has no such field", field=here, remedy=_near(name, fields))
        if content is None:  # as protobuf's JSON has it: not set
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            _fill_map(getattr(message, field.name), content, here)
        elif field.is_repeated:
            _fill_list(message, field, content, here)
        elif isinstance(getattr(message, field.name), Timestamp):
            _fill_time(getattr(message, field.name), content, here)
        elif field.message_type is not None:
            child = getattr(message, field.name)
            child.SetInParent()
            _fill(child, content, here)
        else:
            setattr(message, field.name, _scalar(field, content, here))


def _fill_map(entries: Any, value: Any, place: str) -> None:
    """Every map of SMP is from text to text; numbers and booleans are taken as people write them."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{_kind(value)} where a map is expected", field=place, remedy="write name: text")
    _check_count(value, place)
    for name, content in value.items():
        here = f"{place}[{name!r}]"
        if isinstance(content, bool):
            content = "true" if content else "false"
        elif isinstance(content, int | float):
            content = str(content)
        entries[_text(name, place)] = _text(content, here)


def _fill_list(message: Message, field: Any, value: Any, place: str) -> None:
    if not isinstance(value, list):
        raise ConfigError(f"{_kind(value)} where a list is expected", field=place, remedy="write a list, also for one")
    _check_count(value, place)
    for index, content in enumerate(value):
        here = f"{place}[{index}]"
        if field.message_type is not None:
            _fill(getattr(message, field.name).add(), content, here)
        else:
            getattr(message, field.name).append(_scalar(field, content, here))


def _check_count(value: Any, place: str) -> None:
    if len(value) > _MOST:
        raise ConfigError(f"{len(value)} entries", field=place, remedy=f"{_MOST} are taken at most")


def _fill_time(timestamp: Timestamp, value: Any, place: str) -> None:
    try:
        timestamp.FromJsonString(_text(value, place))
    except ValueError as error:
        raise ConfigError(
            f"{str(value)[:50]!r} is no time", field=place, remedy="write 2026-11-21T16:30:00Z"
        ) from error


def _scalar(field: Any, value: Any, place: str) -> Any:
    if field.enum_type is not None:
        return _enumerated(field.enum_type, value, place)
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return _text(value, place)
        case FieldDescriptor.CPPTYPE_BOOL:
            if not isinstance(value, bool):
                raise ConfigError(f"{_kind(value)} where true or false is expected", field=place)
            return value
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return _double(value, place)
    return _integer(value, _INTEGERS[field.cpp_type], place)


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{_kind(value)} where text is expected", field=place, remedy="put it in quotation marks")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ConfigError("half of a surrogate pair", field=place, remedy="write text that is UTF-8") from error
    return value


def _double(value: Any, place: str) -> float:
    if isinstance(value, str):  # protobuf's JSON lets numbers be text
        try:
            value = float(value)
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{_kind(value)} where a number is expected", field=place)
    return float(value)


def _integer(value: Any, bounds: tuple[int, int], place: str) -> int:
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{_kind(value)} where a whole number is expected", field=place)
    if not bounds[0] <= value <= bounds[1]:
        raise ConfigError(f"{value} doesn't fit", field=place, remedy=f"{bounds[0]} to {bounds[1]}")
    return value


def _enumerated(enum: Any, value: Any, place: str) -> int:
    names = {found.name: found.number for found in enum.values}
    if isinstance(value, str) and value in names:
        return int(names[value])
    if isinstance(value, int) and not isinstance(value, bool) and value in names.values():
        return value
    raise ConfigError(
        f"{str(value)[:50]!r} is no {enum.full_name.removeprefix('smp.')}", field=place, remedy=_near(value, names)
    )


def _near(name: Any, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(str(name), known, n=1) or difflib.get_close_matches(str(name).upper(), known, n=1)
    return f"did you mean {close[0]}?" if close else "known are " + ", ".join(known)


def _kind(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the text {value[:50]!r}"
        case list():
            return "a list"
    return "a map"
