"""Brings the spans that Rust finished to the exporter, so that Rust's part of a trace is in it."""

from __future__ import annotations

import asyncio
import contextlib

from meshwright.core.telemetry import Telemetry
from meshwright.dataplane import telemetry as native

DRAIN_SECONDS = 0.5  # for the first span; bounds how long stopping takes
GATHER_SECONDS = 0.2
"""Spans are fetched this seldom, so that one export carries many: an export of its own for each costs more than it."""


async def export(telemetry: Telemetry, stop: asyncio.Event) -> None:
    """Export until `stop` is set, and then what is left."""
    while not stop.is_set():
        telemetry.export_native_spans(await asyncio.to_thread(native.drain, DRAIN_SECONDS))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER_SECONDS):
                await stop.wait()
    telemetry.export_native_spans(await asyncio.to_thread(native.drain, 0.0))
