"""The wire under the network service API: mutual TLS by SPIFFE ID alone, descriptors on Unix sockets, trace context.

One decision to know: this is the native transport and not grpcio, which can neither dial a server that has only a
SPIFFE ID nor see the descriptors that come beside the bytes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.propagate import extract, inject

from meshwright.core.identity import IdentitySource
from meshwright.dataplane.grpc import NativeChannel, NativeServer


def server(
    listen: str | Sequence[str],
    identity: IdentitySource | None,
    rules: Sequence[tuple[str, Sequence[str]]],
) -> NativeServer:
    """Return a server on these addresses; `rules` say who may call what (path prefix, SPIFFE ID patterns)."""
    return NativeServer(listen, identity, authorize=rules if identity else None)


def channel(target: str, identity: IdentitySource | None, expected: str | None) -> NativeChannel:
    """Return a channel to whoever has the SPIFFE ID `expected`; None: anybody, in plain text."""
    return NativeChannel(target, identity, peer=expected or "")


def trace_metadata() -> list[tuple[str, str]]:
    """Return the current trace's context as metadata for a call."""
    carrier: dict[str, str] = {}
    inject(carrier)
    return list(carrier.items())


@contextlib.contextmanager
def call_trace(context: Any) -> Iterator[None]:
    """Make the call's server span, or the caller's where there is none, the parent of what its handler records."""
    if trace.get_current_span().get_span_context().is_valid:  # grpcio's interceptor has done it
        yield
        return
    if hasattr(context, "traceparent"):
        carrier = {"traceparent": context.traceparent() or ""}
    else:
        carrier = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    token = contexts.attach(extract(carrier))
    try:
        yield
    finally:
        contexts.detach(token)
