"""JSON as documents are written: duplicate keys, numbers that JSON can't carry and deep nesting are refused."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from meshwright.core.config.errors import DocumentError
from meshwright.core.config.limits import Limits, size

MIN_INTEGER, MAX_INTEGER = -(2**63), 2**64 - 1  # what a 64-bit field can hold, signed or not


class _Fault(ValueError):  # noqa: N818 - never leaves this module
    pass


def parse(text: str, source: str, limits: Limits) -> Any:
    """Return the one value in `text`; DocumentError says what is wrong and in which line."""
    if len(text) > limits.document_bytes:
        raise DocumentError(
            f"the document has {size(len(text))}; at most {size(limits.document_bytes)} are taken",
            source=source,
            remedy="split it",
        )
    try:
        value = json.loads(
            text,
            object_pairs_hook=_map,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
    except json.JSONDecodeError as error:
        raise DocumentError(f"not JSON: {error.msg}", source=source, line=error.lineno) from error
    except _Fault as error:
        raise DocumentError(str(error), source=source) from error
    except RecursionError as error:
        raise _too_deep(source, limits) from error
    _measure(value, source, limits)
    return value


def _map(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Fault(f"the key {key[:100]!r} occurs twice in one map")
            seen.add(key)
    return result


def _integer(digits: str) -> int:
    if len(digits) <= 20 and MIN_INTEGER <= (value := int(digits)) <= MAX_INTEGER:
        return value
    raise _Fault(f"the number {digits[:30]} doesn't fit 64 bits")


def _float(digits: str) -> float:
    if math.isinf(value := float(digits)):
        raise _Fault(f"the number {digits[:30]} is too large")
    return value


def _constant(name: str) -> NoReturn:
    raise _Fault(f"{name} isn't a number that JSON knows")


def _measure(value: Any, source: str, limits: Limits) -> None:
    level, depth, nodes = [value], 0, 0
    while level:
        depth, nodes = depth + 1, nodes + len(level)
        if depth > limits.depth:
            raise _too_deep(source, limits)
        if nodes > limits.nodes:
            raise DocumentError(
                f"the document has more than {limits.nodes} values", source=source, remedy="split it into several"
            )
        below: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                below.extend(node.values())
            elif isinstance(node, list):
                below.extend(node)
        level = below


def _too_deep(source: str, limits: Limits) -> DocumentError:
    return DocumentError(f"nested deeper than {limits.depth} levels", source=source)
