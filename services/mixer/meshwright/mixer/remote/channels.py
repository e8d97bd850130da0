"""Channels from Python to adapters, for sessions and reports: with the security that Rust uses for requests."""

from __future__ import annotations

from meshwright.api.policy.v1 import remote_pb2 as pb
from meshwright.core.identity import IdentitySource
from meshwright.dataplane.grpc import ChannelOptions, NativeChannel, OutsideTls

_OPTIONS = ChannelOptions(first_back_off_seconds=0.1, longest_back_off_seconds=5.0)


class NoIdentityError(Exception):
    """The handler wants mixer's own identity, and mixer was started without one."""


def open_channel(remote: pb.Remote, identity: IdentitySource | None) -> NativeChannel:
    """A channel to the adapter; nothing is connected before the first call."""
    if not remote.HasField("security"):
        return NativeChannel(remote.address, None, options=_OPTIONS)
    security = remote.security
    if security.mesh:
        if identity is None:
            raise NoIdentityError("mixer has no identity to show: start it with one, or give certificates")
        return NativeChannel(remote.address, identity, peer=security.server_name, options=_OPTIONS)
    files = OutsideTls(
        security.ca_certificates, security.client_certificate, security.private_key, security.server_name
    )
    return NativeChannel(remote.address, None, outside=files, options=_OPTIONS)
