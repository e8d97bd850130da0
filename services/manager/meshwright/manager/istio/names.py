"""Names in Istio's objects: hosts with and without wildcards, namespaces that something is exported to, gateways."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from meshwright.manager.model.domain import host_of
from meshwright.manager.model.routing import MESH

MAX_HOSTS = 256
_PART = r"[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?"
_HOST = re.compile(rf"{_PART}(\.{_PART})*")
_WILDCARD = re.compile(rf"\*|(\*[-.])?{_PART}(\.{_PART})*")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_GATEWAY = re.compile(r"([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/)?[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


def _host(text: str) -> str:
    if len(text) > 253 or not _HOST.fullmatch(text):
        raise ValueError(f"{text!r} isn't a host: write a service's name, such as reviews, or a whole DNS name")
    return text


def _wildcard(text: str) -> str:
    if len(text) > 253 or not _WILDCARD.fullmatch(text):
        raise ValueError(f"{text!r} isn't a host: write a DNS name, or one such as *.example.com, or *")
    return text


def _exports(names: list[str]) -> list[str]:
    for name in names:
        if name not in (".", "*", "~") and not _NAMESPACE.fullmatch(name):
            raise ValueError(f"{name!r} isn't a namespace: write one, or '.' for this one, or '*' for all")
    for alone in ("*", "~"):
        if alone in names and len(names) > 1:
            raise ValueError(f"{alone!r} stands for all there is to say: remove the others")
    return names


def _gateway(text: str) -> str:
    if not _GATEWAY.fullmatch(text):
        raise ValueError(f"{text!r} isn't a gateway: write NAME, NAMESPACE/NAME, or mesh for the callers' own proxies")
    return text


Host = Annotated[str, AfterValidator(_host)]
WildcardHost = Annotated[str, AfterValidator(_wildcard)]
Exports = Annotated[list[str], Field(max_length=64), AfterValidator(_exports)]
GatewayName = Annotated[str, AfterValidator(_gateway)]
Port = Annotated[int, Field(ge=1, le=65535)]


def whole(host: str, namespace: str) -> str:
    """Return the whole DNS name: one without a dot is a service of the object's namespace."""
    return host if "." in host or host == "*" else host_of(host, namespace)


def exported(names: list[str], namespace: str) -> frozenset[str] | None:
    """Return the namespaces that see an object; None: all of them."""
    if not names or "*" in names:
        return None
    return frozenset(namespace if name == "." else name for name in names if name != "~")


def gateways(names: list[str], namespace: str) -> tuple[str, ...]:
    """Return gateways as ``NAMESPACE/NAME``, and ``mesh`` as it is."""
    return tuple(name if name == MESH or "/" in name else f"{namespace}/{name}" for name in names)
