"""The URLs of network services: what a client asks for, and where a hop listens.

A client writes ``mechanism://service[@domain][/interface][?label=value&…]``; a hop is ``unix:///path``, ``tcp://host:port``
or, when its socket file is passed as a descriptor, ``inode://device/number``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from meshwright.nsm.errors import InvalidUrl

_INTERFACE = re.compile(r"[^\s/:\x00]{1,15}")  # what the kernel takes as a name (IFNAMSIZ)


@dataclass(frozen=True, slots=True)
class NetworkServiceUrl:
    """One network service that a client asks for."""

    mechanism: str  # upper case, for example KERNEL
    service: str  # with @domain if there is one
    interface: str = ""  # empty: the forwarder chooses the name
    labels: Mapping[str, str] = field(default_factory=dict)


def parse(text: str) -> NetworkServiceUrl:
    """Read a client's URL; raise InvalidUrl with what is wrong."""
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise InvalidUrl(f"{text[:200]!r}: {error}", field="network service") from error
    if not parts.scheme or not parts.netloc:
        raise InvalidUrl(
            f"{text[:200]!r} names no mechanism or no service",
            field="network service",
            remedy="write mechanism://service[/interface][?label=value], for example kernel://vpn/nsm-1",
        )
    interface = parts.path.removeprefix("/")
    if interface and (not _INTERFACE.fullmatch(interface) or interface in (".", "..")):
        raise InvalidUrl(
            f"{interface[:50]!r} can't name an interface",
            field="network service",
            remedy="1 to 15 characters, no / or :",
        )
    return NetworkServiceUrl(
        mechanism=parts.scheme.upper(),
        service=parts.netloc,
        interface=interface,
        labels=dict(parse_qsl(parts.query, keep_blank_values=True)),
    )


def dial(url: str) -> str:
    """Return what a channel dials: of a hop's URL, or of an address that is one already; raise InvalidUrl."""
    scheme, separator, rest = url.partition("://")
    if not separator and ":" in url:
        return url
    if separator and rest and scheme == "tcp":
        return rest
    if separator and rest.startswith("/") and scheme == "unix":
        return f"unix:{rest}"
    raise InvalidUrl(f"{url[:200]!r} can't be dialled", field="url", remedy="write unix:///path or tcp://host:port")


def of_address(address: str) -> str:
    """Return the URL form of a listening address (``unix:/path`` or ``host:port``)."""
    return f"unix://{address.removeprefix('unix:')}" if address.startswith("unix:") else f"tcp://{address}"
