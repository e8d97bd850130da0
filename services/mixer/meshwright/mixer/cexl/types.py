"""The value types of the language, numbered as istio.policy.v1beta1.ValueType on the wire."""

from __future__ import annotations

from enum import IntEnum


class ValueType(IntEnum):
    """Type of an attribute or of an expression's result."""

    STRING = 1
    INT64 = 2
    DOUBLE = 3
    BOOL = 4
    TIMESTAMP = 5
    IP_ADDRESS = 6
    EMAIL_ADDRESS = 7
    URI = 8
    DNS_NAME = 9
    DURATION = 10
    STRING_MAP = 11


TEXT_LIKE = frozenset({ValueType.STRING, ValueType.EMAIL_ADDRESS, ValueType.URI, ValueType.DNS_NAME})
"""Types that travel as a string."""

ORDERED = frozenset({ValueType.INT64, ValueType.DOUBLE, ValueType.STRING, ValueType.TIMESTAMP, ValueType.DURATION})
"""Types that `<` and its kin compare."""

ADDABLE = frozenset({ValueType.INT64, ValueType.DOUBLE, ValueType.STRING, ValueType.DURATION})
"""Types that `+` adds or joins."""
