"""Ranges of IP addresses (RFC 4632, RFC 4291 §2.3)."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import AfterValidator


def subnet(text: str) -> str:
    """Accept ``10.0.0.0/8``, ``fd00::/8`` or one address; return it with its length."""
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise ValueError(f"{text!r} isn't a subnet: write an address and a length, such as 10.0.0.0/8") from None


Subnet = Annotated[str, AfterValidator(subnet)]
