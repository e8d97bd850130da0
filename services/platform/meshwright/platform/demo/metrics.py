"""Metrics of parts, from their admin sockets in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from meshwright.core import errors
from meshwright.platform.demo.harness import until
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


async def reached(sockets: Iterable[Path], name: str, value: float, seconds: float) -> None:
    """Wait until the metric is `value` or more in every part: one replica's answer says nothing about the others."""

    async def missing() -> str:
        for socket in sockets:
            found = (await counters(socket)).get(name)
            if found is None or found < value:
                return f"{socket.name}: {name} is {found}, not yet {value:.0f}"
        return ""

    await until(missing, seconds)
