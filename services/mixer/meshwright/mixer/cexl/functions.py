"""The functions of the language with their signatures, which checker, compiler and evaluator all follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from meshwright.mixer.cexl.types import ValueType

_S = ValueType.STRING


@dataclass(frozen=True, slots=True)
class Signature:
    """Parameter and result types; a None stands for one type that all of them share.

    `method` functions are called on their first parameter: `text.startsWith("/")`. The parameter whose number is
    `constant` must be a literal, so that it is checked (and a pattern compiled) once, with the configuration.
    """

    parameters: tuple[ValueType | None, ...]
    result: ValueType | None
    usage: str
    method: bool = False
    constant: int | None = None


FUNCTIONS: Mapping[str, Signature] = MappingProxyType(
    {
        "match": Signature((_S, _S), ValueType.BOOL, 'match(text, "prefix*")'),
        "matches": Signature((_S, _S), ValueType.BOOL, '"regular expression".matches(text)', method=True, constant=0),
        "startsWith": Signature((_S, _S), ValueType.BOOL, 'text.startsWith("prefix")', method=True),
        "endsWith": Signature((_S, _S), ValueType.BOOL, 'text.endsWith("suffix")', method=True),
        "toLower": Signature((_S,), _S, "toLower(text)"),
        "size": Signature((_S,), ValueType.INT64, "size(text)"),
        "ip": Signature((_S,), ValueType.IP_ADDRESS, 'ip("10.0.0.1")'),
        "timestamp": Signature((_S,), ValueType.TIMESTAMP, 'timestamp("2026-01-02T15:04:05Z")'),
        "dnsName": Signature((_S,), ValueType.DNS_NAME, 'dnsName("example.org")'),
        "email": Signature((_S,), ValueType.EMAIL_ADDRESS, 'email("ann@example.org")'),
        "uri": Signature((_S,), ValueType.URI, 'uri("https://example.org/")'),
        "emptyStringMap": Signature((), ValueType.STRING_MAP, "emptyStringMap()"),
        "conditional": Signature((ValueType.BOOL, None, None), None, "conditional(condition, then, otherwise)"),
        "conditionalString": Signature((ValueType.BOOL, _S, _S), _S, "conditionalString(condition, then, otherwise)"),
    }
)
