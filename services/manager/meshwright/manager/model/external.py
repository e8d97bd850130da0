"""Hosts that no Service of the mesh describes: outside of it, or inside but known from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from meshwright.core.config import Key


class Resolution(Enum):
    """How the host's addresses are found."""

    NONE = "none"  # the one that the caller dialled
    STATIC = "static"  # `External.endpoints`
    DNS = "dns"  # all addresses that the names have
    DNS_ROUND_ROBIN = "dns-round-robin"  # one of them at a time
    DYNAMIC_DNS = "dynamic-dns"  # of whatever name the request has


@dataclass(frozen=True, slots=True)
class ExternalPort:
    """A port. `protocol` is Istio's word in lower case (``http``, ``https``, ``tls``, ``grpc``, ``tcp``)."""

    number: int
    protocol: str
    name: str = ""
    target: int | None = None


@dataclass(frozen=True, slots=True)
class ExternalEndpoint:
    """An address (IP, DNS name, or ``unix:///path``); `ports` by the external port's name."""

    address: str
    ports: tuple[tuple[str, int], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    locality: str = ""
    weight: int | None = None
    service_account: str = ""


@dataclass(frozen=True, slots=True)
class External:
    """One entry. `internal`: its endpoints are spoken to by the mesh's mutual TLS; `exported` as in `Routes`."""

    origin: Key
    hosts: tuple[str, ...]
    ports: tuple[ExternalPort, ...]
    addresses: tuple[str, ...] = ()
    resolution: Resolution = Resolution.NONE
    endpoints: tuple[ExternalEndpoint, ...] = ()
    selector: tuple[tuple[str, str], ...] = ()
    internal: bool = False
    names: tuple[str, ...] = ()  # subject alternative names of which its certificates must have one
    exported: frozenset[str] | None = None
