"""Traces, logs and metrics of this process, sent by OTLP to the collector; nothing is sent when no collector is named.

Metrics can be read at the admin listener (`/metrics`) as well. Spans that Rust finished go out by the same way: see
`native`.
"""

from meshwright.core.telemetry.native import NativeSpan
from meshwright.core.telemetry.provider import Telemetry, resource, setup

__all__ = ["NativeSpan", "Telemetry", "resource", "setup"]
