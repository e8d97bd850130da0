"""Between citadel's values and the messages of meshwright.citadel.v1."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from meshwright.api.citadel.v1 import admin_pb2, registration_pb2
from meshwright.citadel.ca.authority import Authority, Issued
from meshwright.citadel.registrations.model import Registration, Selector
from meshwright.core import errors


def to_registration(message: Any) -> Registration:
    """Return a registration as asked for; nothing is judged yet."""
    return Registration(
        id=message.id,
        spiffe_id=message.spiffe_id,
        selectors=tuple(Selector(selector.type, selector.value) for selector in message.selectors),
        ttl=lifetime(message.ttl) if message.HasField("ttl") else None,
        dns_names=tuple(message.dns_names),
        node=message.node,
    )


def from_registration(registration: Registration) -> Any:
    """Return the message of a registration."""
    message = registration_pb2.Registration(
        id=registration.id,
        spiffe_id=registration.spiffe_id,
        selectors=[registration_pb2.Selector(type=s.type, value=s.value) for s in registration.selectors],
        dns_names=registration.dns_names,
        node=registration.node,
    )
    if registration.ttl is not None:
        message.ttl.FromTimedelta(registration.ttl)
    return message


def lifetime(duration: Any) -> timedelta:
    """Return a google.protobuf.Duration as a timedelta; raise ConfigError for one that is too long to be meant."""
    try:
        return timedelta(seconds=duration.seconds, microseconds=duration.nanos // 1000)
    except OverflowError as error:
        raise errors.ConfigError(f"{duration.seconds} seconds", field="ttl", remedy="give a shorter time") from error


def certificate(issued: Issued, authority: Authority) -> Any:
    """Return a signed certificate with the bundle that verifies the mesh."""
    return admin_pb2.Certificate(chain=[issued.certificate_der], bundle=[authority.certificate_der])
