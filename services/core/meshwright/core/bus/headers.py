"""Trace context in message headers (W3C Trace Context): the current span goes out with each message."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.propagate import inject


def outgoing(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return the headers to send: the given ones, and the current trace where they name none."""
    carrier: dict[str, str] = {}
    inject(carrier)
    return {**carrier, **(headers or {})}
