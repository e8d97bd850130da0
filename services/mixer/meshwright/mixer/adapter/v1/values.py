"""Values of fields, and where a reported request comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address

Value = str | int | float | bool | bytes | datetime | timedelta | IPv4Address | IPv6Address | Mapping[str, str]
"""A field's value. E-mail addresses, URIs and DNS names are text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a report instance comes from.

    `record_id` stays the same through all redeliveries. `redelivered` says that the record may have been handled
    before: an adapter hands on both, so that duplicates can be told. `trace_id` and `span_id` are hexadecimal digits
    of the request, empty when unknown. `attributes` is the whole record as it was reported.
    """

    record_id: str
    redelivered: bool = False
    time: datetime
    trace_id: str = ""
    span_id: str = ""
    reporter: str = ""
    attributes: Mapping[str, Value] = field(default_factory=dict)
