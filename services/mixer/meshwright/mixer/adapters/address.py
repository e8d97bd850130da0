"""Addresses of backends in handlers' parameters."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import AfterValidator, Field


def _address(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("not an address: write host:port, for example localhost:8125")
    if host.startswith("["):
        ipaddress.IPv6Address(host.strip("[]"))
    return value


Address = Annotated[str, Field(max_length=300), AfterValidator(_address)]
"""`host:port`, IPv6 addresses in brackets."""


def split(address: str) -> tuple[str, int]:
    """Host and port of an address."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
