"""The two adapters and what they share: a socket, sampling, and a metric's name."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pydantic

from meshwright.mixer.adapter.v1 import Counter, Entry, Host, Metric
from meshwright.mixer.adapters.address import split
from meshwright.mixer.adapters.instance_names import lookup
from meshwright.mixer.adapters.statsd.lines import datagrams, line
from meshwright.mixer.adapters.statsd.name_template import NameTemplate, safe
from meshwright.mixer.adapters.statsd.parameters import (
    DogstatsdMetric,
    DogstatsdParameters,
    StatsdMetric,
    StatsdParameters,
)

Write = Callable[[Metric], str]


class _Socket(asyncio.DatagramProtocol):
    """Counts what the kernel tells about datagrams that went nowhere."""

    def __init__(self, refused: Counter) -> None:
        self._refused = refused

    def error_received(self, error: Exception) -> None:
        self._refused.inc()


class DatagramHandler:
    """Sends each batch in as few datagrams as fit."""

    def __init__(self, transport: asyncio.DatagramTransport, write: Write, rate: float, size: int) -> None:
        self._transport, self._write, self._rate, self._size = transport, write, rate, size

    async def report(self, batch: Sequence[Entry]) -> None:
        """Send; the measurements that sampling leaves out are taken without being sent."""
        picked = (
            entry for entry in batch if isinstance(entry, Metric) and (self._rate >= 1 or random.random() < self._rate)
        )
        for datagram in datagrams(map(self._write, picked), self._size):
            self._transport.sendto(datagram)


class StatsdAdapter:
    """Adapter `statsd`."""

    name = "statsd"
    templates = frozenset({"metric"})
    parameters: type[pydantic.BaseModel] = StatsdParameters

    @asynccontextmanager
    async def open(self, parameters: StatsdParameters, host: Host) -> AsyncIterator[DatagramHandler]:
        """Open the socket."""
        templates = {name: NameTemplate(metric.name_template) for name, metric in parameters.metrics.items()}

        def write(entry: Metric) -> str:
            metric = lookup(parameters.metrics, entry.instance) or StatsdMetric()
            template = lookup(templates, entry.instance) if metric.name_template else None
            name = template.fill(entry.dimensions) if template else _own_name(entry)
            full = safe(parameters.prefix) + name
            return line(full, metric.type, entry.value, parameters.sampling_rate, distribution="ms")

        async with _socket(parameters.address, host) as transport:
            yield DatagramHandler(transport, write, parameters.sampling_rate, parameters.flush_bytes)


class DogstatsdAdapter:
    """Adapter `dogstatsd`."""

    name = "dogstatsd"
    templates = frozenset({"metric"})
    parameters: type[pydantic.BaseModel] = DogstatsdParameters

    @asynccontextmanager
    async def open(self, parameters: DogstatsdParameters, host: Host) -> AsyncIterator[DatagramHandler]:
        """Open the socket."""

        def write(entry: Metric) -> str:
            metric = lookup(parameters.metrics, entry.instance) or DogstatsdMetric()
            name = safe(parameters.prefix + (metric.name or _own_name(entry)))
            tags = {**parameters.global_tags, **entry.dimensions, **metric.tags}
            return line(name, metric.type, entry.value, parameters.sample_rate, distribution="h", tags=tags)

        async with _socket(parameters.address, host) as transport:
            yield DatagramHandler(transport, write, parameters.sample_rate, parameters.datagram_bytes)


def _own_name(entry: Metric) -> str:
    return safe(entry.instance.rpartition(".")[0] or entry.instance)


@asynccontextmanager
async def _socket(address: str, host: Host) -> AsyncIterator[asyncio.DatagramTransport]:
    refused = host.metrics.counter("datagrams_refused_total", "Datagrams that the server's machine refused.")
    transport, _protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Socket(refused), remote_addr=split(address)
    )
    try:
        yield transport
    finally:
        transport.close()


STATSD: Any = StatsdAdapter()
DOGSTATSD: Any = DogstatsdAdapter()
