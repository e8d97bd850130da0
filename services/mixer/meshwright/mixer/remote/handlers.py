"""What a handler of an out-of-process adapter is compiled to: its connection, its parameters in an Any, its token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Self

import pydantic
from google.protobuf import any_pb2, json_format, message_factory

from meshwright.api.policy.v1 import remote_pb2 as pb
from meshwright.mixer.config.models import Connection, OAuth
from meshwright.mixer.remote import descriptors, templates
from meshwright.mixer.remote.descriptors import DescriptorError
from meshwright.mixer.remote.templates import RemoteTemplate

REPORTS = "remote"
"""Name of the adapter that delivers reports; no document can name it."""
SYSTEM_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
_PARAMETERS = "Params"


@dataclass(frozen=True, slots=True)
class Token:
    """Where the token comes from that each call carries: a file, or an OAuth server's client credentials."""

    prefix: str
    path: str = ""
    oauth: OAuth | None = None


@dataclass(frozen=True, slots=True)
class RemoteHandler:
    """A handler as the parts in Python need it.

    `decides` says whether it may be asked to decide requests; a timeout of 0 is none of its own. `types` are what its
    instances' expressions yield, by the names that the adapter knows, each an Any; `plans` are the encodings of its
    report instances, by `name.namespace`.
    """

    name: str
    remote: pb.Remote
    timeout_nanos: int = 0
    decides: bool = True
    token: Token | None = None
    types: Mapping[str, bytes] = field(default_factory=dict)
    plans: Mapping[str, pb.Encoding] = field(default_factory=dict)


class Reports(pydantic.BaseModel):
    """One handler's report instances for whoever delivers them: their plans by name, encoded."""

    model_config = pydantic.ConfigDict(frozen=True)

    handler: str
    remote: bytes
    plans: dict[str, bytes]

    @classmethod
    def of(cls, handler: RemoteHandler) -> Self:
        """What a compiled handler's reports need."""
        plans = {name: plan.SerializeToString(deterministic=True) for name, plan in handler.plans.items()}
        return cls(handler=handler.name, remote=handler.remote.SerializeToString(deterministic=True), plans=plans)


@lru_cache(maxsize=256)
def read_template(text: str) -> RemoteTemplate:
    """The template in a document's `descriptor`; DescriptorError."""
    return templates.template(descriptors.decode(text))


@lru_cache(maxsize=256)
def _parameters(text: str) -> Any:
    """The descriptor of the adapter's parameters: the message Params of the set's last file that has one."""
    found = descriptors.decode(text)
    for file in reversed(found.files):
        if any(each.name == _PARAMETERS for each in file.message_type):
            return found.message(f"{file.package}.{_PARAMETERS}" if file.package else _PARAMETERS)
    raise DescriptorError(f"no file has a message {_PARAMETERS}")


def check_parameters(config: str) -> None:
    """DescriptorError when an adapter's `config` is no descriptor set with a message Params."""
    _parameters(config)


def adapter_config(config: str, given: Mapping[str, Any]) -> bytes:
    """A handler's `params` as an encoded Any; ValueError when they don't fit the adapter's `config`."""
    if not config:
        if given:
            raise ValueError("the adapter takes no parameters (its document has no `config`): remove them")
        return b""
    descriptor = _parameters(config)
    message = message_factory.GetMessageClass(descriptor)()
    try:
        json_format.ParseDict(dict(given), message, descriptor_pool=descriptor.file.pool, max_recursion_depth=32)
    except json_format.ParseError as error:
        raise ValueError(f"not a {descriptor.full_name}: {error}") from error
    return packed(f"type.googleapis.com/{descriptor.full_name}", message.SerializeToString(deterministic=True))


def packed(type_url: str, value: bytes) -> bytes:
    """An Any in its bytes."""
    return any_pb2.Any(type_url=type_url, value=value).SerializeToString(deterministic=True)


def connect(
    connection: Connection, config: bytes, *, session_based: bool, max_in_flight: int
) -> tuple[pb.Remote, Token | None]:
    """The connection as Rust makes it, and where its token comes from."""
    remote = pb.Remote(
        address=connection.address, adapter_config=config, session_based=session_based, max_in_flight=max_in_flight
    )
    authentication = connection.authentication
    if authentication is None:
        return remote, None
    if (mutual := authentication.mutual) is not None:
        if not (mutual.private_key or mutual.client_certificate or mutual.ca_certificates):
            remote.security.mesh = True
            remote.security.server_name = _member(mutual.server_name, connection.address)
            return remote, None
        remote.security.private_key = mutual.private_key
        remote.security.client_certificate = mutual.client_certificate
        remote.security.ca_certificates = mutual.ca_certificates or SYSTEM_AUTHORITIES
        remote.security.server_name = mutual.server_name
        return remote, None
    tls = authentication.tls
    assert tls is not None  # its model says that it is one of the two
    remote.security.ca_certificates = tls.ca_certificates or SYSTEM_AUTHORITIES
    remote.security.server_name = tls.server_name
    if tls.token_path is None and tls.oauth is None:
        return remote, None
    remote.authorization.header = (tls.custom_header or "authorization").lower()
    prefix = "Bearer " if tls.auth_header == "BEARER" else ""
    return remote, Token(prefix, tls.token_path or "", tls.oauth)


def _member(name: str, address: str) -> str:
    """Whom of the mesh to expect, as channels name it."""
    if name.startswith(("spiffe://", "dns:")):
        return name
    return f"dns:{name or address.removeprefix('dns:///').rpartition(':')[0]}"
