"""Conversions of literals, judged as the engine judges text at request time.

One decision to know: only an address, or a moment that a policy can hold exactly, becomes a constant; other literals
are judged here and converted by the engine, whose types have room for more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Literal


class _Kept(Enum):
    KEPT = "kept"


KEPT: Final = _Kept.KEPT
"""The literal is good; its conversion stays."""

Converted = IPv4Address | IPv6Address | datetime | Literal[_Kept.KEPT] | None

_RFC_3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII
)
_FIRST, _LAST = datetime(1678, 1, 1, tzinfo=UTC), datetime(2262, 1, 1, tzinfo=UTC)  # nanoseconds of 64 bits
_MICROSECONDS = 6


def address(text: str) -> Converted:
    """An IPv4 or IPv6 address, without a zone."""
    try:
        return None if "%" in text else ip_address(text)
    except ValueError:
        return None


def moment(text: str) -> Converted:
    """RFC 3339."""
    found = _RFC_3339.fullmatch(text)
    if found is None:
        return None
    date, time, fraction, zone = found.groups()
    offset = "+00:00" if zone in "Zz" else zone
    try:
        whole = datetime.fromisoformat(f"{date}T{time}.{(fraction or '0')[:_MICROSECONDS]:0<6}{offset}")
        fits = _FIRST <= whole < _LAST and not (fraction or "")[_MICROSECONDS:].strip("0")
    except ValueError:
        return None
    except OverflowError:  # at the ends of the calendar
        fits = False
    return whole if fits else KEPT


def dns_name(text: str) -> Converted:
    """Labels of 1 to 63 letters, digits, hyphens and underscores, 253 bytes at most."""
    name = text.removesuffix(".")
    fits = len(name.encode()) <= 253 and all(map(_is_label, name.split(".")))
    return KEPT if fits else None


def email(text: str) -> Converted:
    """Something before the last @ and a DNS name after it."""
    local, _, domain = text.rpartition("@")
    return KEPT if local and dns_name(domain) else None


def uri(text: str) -> Converted:
    """Not empty, no blanks, nothing that can't be printed."""
    fits = text and not any(each.isspace() or ord(each) < 0x20 or 0x7F <= ord(each) < 0xA0 for each in text)
    return KEPT if fits else None


def _is_label(label: str) -> bool:
    return (
        1 <= len(label.encode()) <= 63
        and all(each.isalnum() or each in "-_*" for each in label)
        and label[0] != "-" != label[-1]
    )


CONVERSIONS: Mapping[str, Callable[[str], Converted]] = {
    "ip": address,
    "timestamp": moment,
    "dnsName": dns_name,
    "email": email,
    "uri": uri,
}
"""By function."""
