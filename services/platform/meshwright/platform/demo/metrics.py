"""Counters of a part, from its admin socket in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from meshwright.core import errors
from meshwright.platform.up import probes


async def counters(socket: Path) -> Mapping[str, float]:
    """Return every sample by its name with labels, as in ``meshwright_mixer_records_stored_total``."""
    status, body = await probes.http_get(socket, "/metrics")
    if status != 200:
        raise errors.Unavailable(f"{socket.name}: /metrics answered {status}")
    found: dict[str, float] = {}
    for line in body.decode().splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found
