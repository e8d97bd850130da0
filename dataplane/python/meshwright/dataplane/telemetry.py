"""What native code knows of its work, for the exporter in `meshwright.core.telemetry`: finished spans, counted calls.

One decision to know: the queue of spans is bounded and never waits; what doesn't fit is dropped and counted in
`dropped()`.
"""

from typing import Literal

from meshwright.dataplane._native import (
    AccessRecord,
    MethodCalls,
    NativeSpan,
    StatusCalls,
    call_duration_bounds,
    drain_spans,
    dropped_spans,
    read_calls,
    server_of,
)

__all__ = [
    "AccessRecord",
    "MethodCalls",
    "NativeSpan",
    "StatusCalls",
    "bounds",
    "calls",
    "drain",
    "dropped",
    "server_of",
]


def drain(timeout: float, most: int = 512) -> list[NativeSpan]:
    """Take up to `most` finished spans; wait up to `timeout` seconds for the first. Blocks: call it in a thread."""
    return drain_spans(most, timeout)


def dropped() -> int:
    """Return how many spans were dropped since the process began."""
    return dropped_spans()


def calls(side: Literal["server", "client"]) -> list[MethodCalls]:
    """Return what the process's servers or channels have counted since it began, by method."""
    return read_calls(side)


def bounds() -> list[float]:
    """Return the upper bounds, in seconds, of the buckets in which calls are counted."""
    return call_duration_bounds()
