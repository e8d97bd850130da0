"""OTLP values as text, which is how queries compare and show them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue


def text(value: AnyValue) -> str:
    """Return a value as text: true/false for booleans, hexadecimal for bytes, JSON for lists and maps."""
    plain = _plain(value)
    if isinstance(plain, str):
        return plain
    return json.dumps(plain, ensure_ascii=False)


def _plain(value: AnyValue) -> Any:
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "int_value":
            return value.int_value
        case "double_value":
            return value.double_value
        case "bytes_value":
            return value.bytes_value.hex()
        case "array_value":
            return [_plain(item) for item in value.array_value.values]
        case "kvlist_value":
            return {item.key: _plain(item.value) for item in value.kvlist_value.values}
    return ""


def attributes(pairs: Iterable[KeyValue]) -> dict[str, str]:
    """Return attributes as a map of text."""
    return {pair.key: text(pair.value) for pair in pairs}


def matches(wanted: Mapping[str, str], *pairs: Iterable[KeyValue]) -> bool:
    """Return whether each wanted pair is among the attributes; looks only at the keys that are asked for."""
    missing = dict(wanted)
    for pair in (pair for group in pairs for pair in group):
        if pair.key in missing and text(pair.value) == missing[pair.key]:
            del missing[pair.key]
    return not missing
