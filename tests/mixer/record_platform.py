"""A platform for tests of the record pipeline: NATS, a collector, and mixers as processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import servers
from mixers import Mixer
from otlp_collector import Collector, attribute

from meshwright.core.bus import server_config
from meshwright.core.identity import StaticIdentity
from pki import Pki


class Bus(Protocol):
    """A NATS server, or several."""

    @property
    def address(self) -> str:
        """What mixer is told of it."""

    def start(self) -> None:
        """Return when it serves."""

    def kill(self) -> None:
        """As kill -9 does."""


def alone(folder: Path, infrastructure: servers.InfrastructurePki) -> servers.Process:
    """One NATS server."""
    port, config = servers.free_port(), folder / "nats.conf"
    tls = infrastructure.write(folder / "nats-tls", "nats")
    config.write_text(server_config(listen=f"127.0.0.1:{port}", tls=tls, store=folder / "store"))
    return servers.Process([servers.nats_binary(), "-c", str(config)], port, folder / "nats.log")


@dataclass
class Platform:
    """NATS, a collector and what mixers need to reach both."""

    folder: Path
    pki: Pki
    nats: Bus
    nats_tls: Path
    collector: Collector
    mixers: list[Mixer] = field(default_factory=list)

    def mixer(self, name: str, *arguments: str, nats: bool = True) -> Mixer:
        """One that isn't started yet."""
        bus = ("--nats", self.nats.address, "--nats-tls", str(self.nats_tls)) if nats else ()
        config = self.folder / "config"
        config.mkdir(exist_ok=True)
        more = "--otlp", self.collector.address, *bus, *arguments
        mixer = Mixer(self.folder / name, self.pki, *more, config=config)
        self.mixers.append(mixer)
        return mixer

    async def report(self, mixer: Mixer, count: int, timeout: float = 5, first: int = 0) -> None:
        """Report `count` requests, in batches as a sidecar does."""
        sidecar = self.pki.workload("shop")
        for start in range(first, first + count, 50):
            numbers = range(start, min(start + 50, first + count))
            records: list[dict[str, Any]] = [{"request.path": f"/{n}", "response.code": 200} for n in numbers]
            await mixer.report(sidecar, *records, timeout=timeout)


@contextlib.asynccontextmanager
async def running(
    folder: Path, pki: Pki, infrastructure: servers.InfrastructurePki, nats: Bus
) -> AsyncIterator[Platform]:
    """A platform with a NATS that is started and, like its mixers, killed at the end."""
    try:
        await asyncio.to_thread(nats.start)
        async with Collector(StaticIdentity(pki.part("collector"))) as collector:
            platform = Platform(folder, pki, nats, infrastructure.write(folder / "mixer-tls", "mixer"), collector)
            yield platform
            for mixer in platform.mixers:
                mixer.kill()
    finally:
        nats.kill()


async def metric_reaches(mixer: Mixer, name: str, value: float, seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while await mixer.metric(name) < value:
            await asyncio.sleep(0.05)


def paths(collector: Collector) -> Counter[str]:
    return Counter(attribute(record.attributes, "url.path") for record in collector.logs)


def unmarked(collector: Collector) -> int:
    """How often the record arrived that arrived most often without being marked as one that may have come before."""
    copies = Counter(identifier for identifier, redelivered in collector.record_ids() if not redelivered)
    return max(copies.values(), default=1)
