"""CEL's functions as far as attributes need them, with their signatures.

`default` is ours: CEL has no short way to say what to take where a request lacks something.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from meshwright.mixer.cexl.types import TEXT_LIKE, ValueType

_S = frozenset({ValueType.STRING})
_I = frozenset({ValueType.INT64})
_D = frozenset({ValueType.DOUBLE})
_TIME = frozenset({ValueType.TIMESTAMP})
_DURATION = frozenset({ValueType.DURATION})
_ADDRESS = frozenset({ValueType.IP_ADDRESS})
_ANY = frozenset(ValueType) - {ValueType.STRING_MAP}

Kinds = frozenset[ValueType]


@dataclass(frozen=True, slots=True)
class Signature:
    """What each parameter may be, the result, and how it is written.

    A `method` is called on its first parameter, `text.contains("x")`; `either` may be called both ways. The parameter
    numbered `constant` must be a literal, so that it is checked once, with the configuration. `applied` is the
    function's name in the typed tree.
    """

    parameters: tuple[Kinds, ...]
    result: ValueType
    usage: str
    applied: str
    method: bool = False
    either: bool = False
    constant: int | None = None


def _method(name: str, applied: str = "") -> Signature:
    return Signature((_S, _S), ValueType.BOOL, f'text.{name}("…")', applied or name, method=True)


FUNCTIONS: Mapping[str, Signature] = MappingProxyType(
    {
        "startsWith": _method("startsWith"),
        "endsWith": _method("endsWith"),
        "contains": _method("contains"),
        "matches": Signature(
            (_S, _S), ValueType.BOOL, 'text.matches(r"…")', "matches", method=True, either=True, constant=1
        ),
        "size": Signature((_S,), ValueType.INT64, "size(text)", "length", either=True),
        "lowerAscii": Signature((_S,), ValueType.STRING, "text.lowerAscii()", "lowerAscii", method=True),
        "int": Signature((_I | _D | _S | _TIME,), ValueType.INT64, "int(value)", "int"),
        "double": Signature((_I | _D | _S,), ValueType.DOUBLE, "double(value)", "double"),
        "string": Signature((_ANY,), ValueType.STRING, "string(value)", "string"),
        "timestamp": Signature((_S | _TIME,), ValueType.TIMESTAMP, 'timestamp("2026-01-02T15:04:05Z")', "timestamp"),
        "duration": Signature((_S | _DURATION,), ValueType.DURATION, 'duration("1m30s")', "duration"),
        "ip": Signature((_S | _ADDRESS,), ValueType.IP_ADDRESS, 'ip("10.0.0.1")', "ip"),
        "containsIP": Signature(
            (_S, _ADDRESS), ValueType.BOOL, 'cidr("10.0.0.0/8").containsIP(address)', "within", method=True, constant=0
        ),
    }
)

SPECIAL: Mapping[str, str] = MappingProxyType(
    {
        "has": "has(attribute)",
        "default": "default(value, otherwise)",
        "cidr": 'cidr("10.0.0.0/8").containsIP(address)',
    }
)
"""What the checker treats on its own: how each is written."""

SAME = frozenset({"int", "double", "string", "timestamp", "duration", "ip"})
"""Conversions, which leave a value of their own type as it is."""

MACROS = frozenset({"all", "exists", "exists_one", "map", "filter"})
"""CEL's loops: attributes have no lists to go through."""

TEXTS = TEXT_LIKE - _S
"""Types that CEL takes for text where text is asked for."""
