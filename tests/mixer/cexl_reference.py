"""What CEXL means, in Python and slowly: the engine must come to the same result for every expression and request.

Values are those of meshwright.mixer.check (IP addresses as bytes); times and durations count in nanoseconds inside.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from meshwright.mixer.cexl import Expression, ValueType
from meshwright.mixer.cexl.typed import Apply, Attribute, Constant, Lookup

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC_3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


class AbsentError(Exception):
    """An attribute or a key isn't there."""


class UnfitError(Exception):
    """A function can't make anything of its argument."""


def evaluate(expression: Expression, attributes: Mapping[str, Any]) -> Any:
    """The value of a checked expression."""
    match expression:
        case Constant():
            return _plain(expression.value)
        case Attribute():
            if expression.name not in attributes:
                raise AbsentError
            return _plain(attributes[expression.name])
        case Lookup():
            entries = evaluate(expression.map, attributes)
            key = evaluate(expression.key, attributes)
            if key not in entries:
                raise AbsentError
            return entries[key]
        case Apply():
            return _apply(expression, attributes)


def _apply(expression: Apply, attributes: Mapping[str, Any]) -> Any:
    lazy = [lambda each=each: evaluate(each, attributes) for each in expression.arguments]
    match expression.function:
        case "&&":
            return all(each() for each in lazy)
        case "||":
            return any(each() for each in lazy)
        case "|":
            for each in lazy[:-1]:
                try:
                    return each()
                except AbsentError:
                    continue
            return lazy[-1]()
        case "conditional" | "conditionalString":
            return lazy[1]() if lazy[0]() else lazy[2]()
    values = [each() for each in lazy]
    match expression.function:
        case "!":
            return not values[0]
        case "==" | "!=":
            kind = expression.arguments[0].type
            left, right = (_normal(kind, each) for each in values)
            return (left == right) is (expression.function == "==")
        case "<":
            return values[0] < values[1]
        case "<=":
            return values[0] <= values[1]
        case ">":
            return values[0] > values[1]
        case ">=":
            return values[0] >= values[1]
        case "+":
            return _sum(expression.type, values)
        case function:
            return _FUNCTIONS[function](*values)


def _sum(kind: ValueType, values: list[Any]) -> Any:
    result = values[0]
    for each in values[1:]:
        result = result + each
        if kind in (ValueType.INT64, ValueType.DURATION):
            result = (result + 2**63) % 2**64 - 2**63
    return result


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return (value - _EPOCH) // timedelta(microseconds=1) * 1000
        case timedelta():
            return value // timedelta(microseconds=1) * 1000
        case bytes():
            return _canonical(ip_address(value))
        case IPv4Address() | IPv6Address():
            return _canonical(value)
    return value


def _canonical(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _normal(kind: ValueType, value: Any) -> Any:
    match kind:
        case ValueType.DNS_NAME:
            return value.removesuffix(".").lower()
        case ValueType.EMAIL_ADDRESS:
            local, at, domain = value.rpartition("@")
            return f"{local}{at}{domain.removesuffix('.').lower()}" if at else value
        case ValueType.URI:
            scheme, mark, rest = value.partition("://")
            end = min((found for found in map(rest.find, "/?#") if found >= 0), default=len(rest))
            return f"{_ascii_lower(scheme)}{mark}{_ascii_lower(rest[:end])}{rest[end:]}" if mark else value
    return value


def _ascii_lower(text: str) -> str:
    return "".join(each.lower() if each.isascii() else each for each in text)


def _match(text: str, pattern: str) -> bool:
    if pattern.endswith("*"):
        return text.startswith(pattern[:-1])
    return text.endswith(pattern[1:]) if pattern.startswith("*") else text == pattern


def _ip(text: str) -> Any:
    try:
        return _canonical(ip_address(text))
    except ValueError:
        raise UnfitError from None


def _timestamp(text: str) -> int:
    found = _RFC_3339.fullmatch(text)
    try:
        if found is None:
            raise UnfitError
        date, time, fraction, zone = found.groups()
        whole = datetime.fromisoformat(f"{date}T{time}{'+00:00' if zone in 'Zz' else zone}")
    except ValueError:
        raise UnfitError from None
    return (whole - _EPOCH) // timedelta(seconds=1) * 10**9 + int(f"{(fraction or '.0')[1:10]:0<9}")


def _checked(fits: Callable[[str], bool]) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not fits(text):
            raise UnfitError
        return text

    return check


def _is_dns_name(text: str) -> bool:
    name = text.removesuffix(".")
    labels = name.split(".")
    return len(name.encode()) <= 253 and all(
        re.fullmatch(r"[\w*](?:[\w*-]*[\w*])?", label) is not None and len(label.encode()) <= 63 for label in labels
    )


def _is_email(text: str) -> bool:
    local, _, domain = text.rpartition("@")
    return bool(local) and _is_dns_name(domain)


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "match": _match,
    "matches": lambda pattern, text: re.search(pattern, text) is not None,
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "toLower": str.lower,
    "size": lambda text: len(text.encode()),
    "ip": _ip,
    "timestamp": _timestamp,
    "dnsName": _checked(_is_dns_name),
    "email": _checked(_is_email),
    "uri": _checked(lambda text: bool(text) and not re.search(r"[\s\x00-\x1f\x7f-\x9f]", text)),
    "emptyStringMap": dict,
}
