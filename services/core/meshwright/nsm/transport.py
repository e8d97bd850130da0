"""The client's side of the wire under the network service API: mutual TLS by SPIFFE ID alone, and trace context.

One decision to know: this is the native channel as it is, not core's: the descriptors that pass beside the calls belong
to one connection, so that a hop must know its connections.
"""

from __future__ import annotations

from meshwright.core.grpc import tracing
from meshwright.core.identity import IdentitySource
from meshwright.dataplane.grpc import NativeChannel


def channel(target: str, identity: IdentitySource | None, expected: str | None) -> NativeChannel:
    """Return a channel to whoever has the SPIFFE ID `expected`; None: anybody, in plain text."""
    return NativeChannel(target, identity, peer=expected or "", traceparent=tracing.traceparent)
