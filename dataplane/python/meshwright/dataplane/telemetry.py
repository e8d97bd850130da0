"""Spans that native code has finished, for the exporter in `meshwright.core.telemetry`.

One decision to know: the queue is bounded and never waits; what doesn't fit is dropped and counted in `dropped()`.
"""

from meshwright.dataplane._native import NativeSpan, drain_spans, dropped_spans

__all__ = ["NativeSpan", "drain", "dropped"]


def drain(timeout: float, most: int = 512) -> list[NativeSpan]:
    """Take up to `most` finished spans; wait up to `timeout` seconds for the first. Blocks: call it in a thread."""
    return drain_spans(most, timeout)


def dropped() -> int:
    """Return how many spans were dropped since the process began."""
    return dropped_spans()
