"""Protobuf's wire format, as far as responses are put together from finished bytes.

One decision to know: a resource is serialised once, as a whole field of the response, and those bytes are shared by all
clients. A response is their concatenation between a version and a nonce; no message is built for each client.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import field as member
from hashlib import blake2b

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from meshwright.manager.xds import references

_VERSION_BYTES = 8  # of a hash: two different contents of one resource get the same once in 2⁶⁴


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


@dataclass(frozen=True, slots=True, eq=False)
class Resource:
    """A serialised resource: `body` is the field `resources` of DiscoveryResponse.

    `version` is a hash of name and bytes: every replica of a server gives the same one to the same resource. `leads`
    are the names of the resources that a client asks for next: a cluster's endpoints, a listener's routes. One without
    a body is known by its version alone: a client said that it has it.
    """

    name: str
    body: bytes = member(repr=False)
    version: str
    leads: frozenset[str] = frozenset()
    _delta: list[bytes] = member(default_factory=list, repr=False)

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Resource) and self.version == other.version and self.name == other.name
        )

    def __hash__(self) -> int:
        return hash(self.version)

    @property
    def delta(self) -> bytes:
        """The field `resources` of DeltaDiscoveryResponse; made when the first client wants it."""
        if not self._delta:
            # envoy.service.discovery.v3.Resource: version=1, resource=2 (which is the number that `body` has), name=3.
            whole = field(1, self.version.encode()) + self.body + field(3, self.name.encode())
            self._delta.append(field(2, whole))
        return self._delta[0]


def resource(name: str, message: Message, extra: bytes = b"") -> Resource:
    """Serialise a resource; `extra` is more of the message's fields, already encoded."""
    value = message.SerializeToString(deterministic=True) + extra
    return raw(name, f"type.googleapis.com/{message.DESCRIPTOR.full_name}", value, references.of(message))


def raw(name: str, type_url: str, value: bytes, leads: frozenset[str] = frozenset()) -> Resource:
    """Make a resource of a message that is serialised already."""
    body = field(2, packed(type_url, value))
    version = blake2b(name.encode() + body, digest_size=_VERSION_BYTES).hexdigest()
    return Resource(name, body, version, leads)


def content(body: bytes) -> bytes:
    """Return what the length-delimited field `body` holds: of a resource, its google.protobuf.Any."""
    start = 1
    while body[start] > 127:
        start += 1
    return body[start + 1 :]


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


def response(type_url: str, version: str, bodies: Iterable[bytes]) -> bytes:
    """Encode envoy.service.discovery.v3.DiscoveryResponse but for its nonce.

    version_info=1, resources=2, type_url=4.
    """
    return b"".join((field(1, version.encode()), *bodies, field(4, type_url.encode())))


def delta_response(type_url: str, version: str, bodies: Iterable[bytes], removed: Iterable[str]) -> bytes:
    """Encode envoy.service.discovery.v3.DeltaDiscoveryResponse but for its nonce.

    system_version_info=1, resources=2, type_url=4, removed_resources=6.
    """
    gone = (field(6, name.encode()) for name in removed)
    return b"".join((field(1, version.encode()), *bodies, field(4, type_url.encode()), *gone))


def nonce(text: str) -> bytes:
    """Encode what makes either response whole (nonce=5)."""
    return field(5, text.encode())
