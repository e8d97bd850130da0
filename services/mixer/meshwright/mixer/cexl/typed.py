"""The checked tree: every node has a type, every function is resolved, nothing is left to verify."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address

from meshwright.mixer.cexl.types import ValueType

ConstantValue = str | int | float | bool | datetime | IPv4Address | IPv6Address
"""A DURATION constant is an int of nanoseconds; a TIMESTAMP is an aware datetime."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A value known when configuration is compiled."""

    type: ValueType
    value: ConstantValue


@dataclass(frozen=True, slots=True)
class Attribute:
    """Reads one attribute; absent at request time is an error unless a default (`|`) catches it."""

    type: ValueType
    name: str


@dataclass(frozen=True, slots=True)
class Output:
    """Reads one field of what an adapter puts out for `owner`: an action of a rule, or a generator's instance."""

    type: ValueType
    owner: str
    field: str


@dataclass(frozen=True, slots=True)
class Lookup:
    """Reads one key of a STRING_MAP; an absent key is like an absent attribute."""

    type: ValueType
    map: Expression
    key: Expression


@dataclass(frozen=True, slots=True)
class Apply:
    """An operator or function with checked arguments; a method's receiver is its first argument."""

    type: ValueType
    function: str
    arguments: tuple[Expression, ...]


Expression = Constant | Attribute | Output | Lookup | Apply
