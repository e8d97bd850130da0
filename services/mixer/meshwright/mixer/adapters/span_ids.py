"""Identifiers of spans as requests' headers carry them: hexadecimal text, which anybody may have written."""

from __future__ import annotations

import hashlib

from meshwright.mixer.adapter.v1 import TraceSpan

_DIGITS = frozenset("0123456789abcdef")


def hexadecimal(text: str, *lengths: int) -> str:
    """The text in small letters when it has one of these lengths and isn't all zeros, else nothing."""
    small = text.lower()
    is_one = len(small) in lengths and _DIGITS.issuperset(small) and small.strip("0")
    return small if is_one else ""


def ids(span: TraceSpan) -> tuple[str, str, str] | None:
    """Trace (32 digits), span and parent (16, or empty) of a span; None when it belongs to no trace.

    B3 lets client and server share one span. With `rewrite_client_span_id` the client's side gets an id of its own,
    made from the shared one, and the server's side becomes its child.
    """
    trace = hexadecimal(span.trace_id, 16, 32).rjust(32, "0")
    own = hexadecimal(span.span_id, 16)
    if not trace.strip("0") or not own:
        return None
    parent = hexadecimal(span.parent_span_id, 16)
    if not span.rewrite_client_span_id:
        return trace, own, parent
    clients = hashlib.blake2b(bytes.fromhex(own), digest_size=8, person=b"client").hexdigest()
    return (trace, clients, parent) if span.client_span else (trace, own, clients)
