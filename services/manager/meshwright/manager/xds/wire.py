"""Protobuf's wire format, as far as responses are put together from finished bytes.

One decision to know: a resource is serialised once, as a whole field of DiscoveryResponse, and those bytes are shared
by all proxies. A response is their concatenation between a version and a nonce; no message is built for each proxy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message


def varint(number: int) -> bytes:
    """Encode a number, seven bits a byte."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, value: bytes) -> bytes:
    """Encode a length-delimited field."""
    return varint(number << 3 | 2) + varint(len(value)) + value


@dataclass(frozen=True, slots=True)
class Resource:
    """A serialised resource: `body` is the field `resources` of DiscoveryResponse."""

    name: str
    body: bytes


def resource(name: str, message: Message, extra: bytes = b"") -> Resource:
    """Serialise a resource; `extra` is more of the message's fields, already encoded."""
    value = message.SerializeToString(deterministic=True) + extra
    return Resource(name, field(2, packed(f"type.googleapis.com/{message.DESCRIPTOR.full_name}", value)))


def packed(type_url: str, value: bytes) -> bytes:
    """Encode google.protobuf.Any."""
    return field(1, type_url.encode()) + field(2, value)


def pack(message: Message) -> Any:
    """Put a message into google.protobuf.Any, with the same bytes every time."""
    return Any(
        type_url=f"type.googleapis.com/{message.DESCRIPTOR.full_name}",
        value=message.SerializeToString(deterministic=True),
    )


def empty(full_name: str) -> Any:
    """Name a message type without content, such as a filter's configuration that has nothing to set."""
    return Any(type_url=f"type.googleapis.com/{full_name}")


def response(type_url: str, version: str, nonce: str, bodies: Iterable[bytes]) -> bytes:
    """Encode envoy.service.discovery.v3.DiscoveryResponse (version_info=1, resources=2, type_url=4, nonce=5)."""
    return b"".join((field(1, version.encode()), *bodies, field(4, type_url.encode()), field(5, nonce.encode())))
