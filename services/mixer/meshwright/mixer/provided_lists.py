"""Lists that HTTP services provide (adapter `listchecker`, `providerUrl`): read now and then, believed for a while.

One decision to know: a list is part of the compiled policy like all else. So a list that has changed is a policy that
is compiled again, with what didn't change taken from before, and the engine knows nothing of providers.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import yaml

from meshwright.core import clock as clocks
from meshwright.core.health import Health
from meshwright.core.renewal import Backoff
from meshwright.mixer.adapters.http_client import http_client
from meshwright.mixer.config.adapters import ListChecker

MAX_BYTES = 16 * 1024 * 1024
MAX_ENTRIES = 500_000
_TIMEOUT_SECONDS = 10.0


@dataclass(slots=True)
class _Provided:
    parameters: ListChecker
    task: asyncio.Task[None]
    entries: tuple[str, ...] | None = None


class ProvidedLists:
    """`async with ProvidedLists(health):`; `follow` what a policy needs, `current` is what there is."""

    def __init__(self, health: Health, clock: clocks.Clock | None = None) -> None:
        self._health, self._clock = health, clock or clocks.SystemClock()
        self._provided: dict[str, _Provided] = {}
        self._changed = asyncio.Event()

    def current(self) -> Mapping[str, Sequence[str]]:
        """Entries by handler; one whose list can't be had isn't there."""
        return {name: each.entries for name, each in self._provided.items() if each.entries is not None}

    def follow(self, providers: Mapping[str, ListChecker]) -> None:
        """Read these providers' lists from now on, by handler, and no others."""
        for name in [name for name, each in self._provided.items() if providers.get(name) != each.parameters]:
            self._provided.pop(name).task.cancel()
            self._health.forget(_part(name))
        for name, parameters in providers.items():
            if name not in self._provided:
                task = asyncio.create_task(self._refresh(name, parameters), name=f"list of {name}")
                self._provided[name] = _Provided(parameters, task)

    async def changes(self) -> AsyncIterator[None]:
        """Yield after each change of `current`; changes that come together are one."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            yield

    async def _refresh(self, name: str, parameters: ListChecker) -> None:
        interval, ttl = parameters.refresh_interval / 1e9, parameters.ttl / 1e9
        backoff, read = Backoff(1.0, max(1.0, min(interval, 30.0))), self._clock.monotonic()
        while True:
            try:
                entries = await fetch(parameters)
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"[:300]
                if self._clock.monotonic() - read >= ttl:
                    self._put(name, None)
                self._health.degrade(_part(name), f"{parameters.provider_url}: {reason}")
                await self._clock.sleep(min(backoff.delay(), ttl))
                continue
            read = self._clock.monotonic()
            backoff.reset()
            self._health.set(_part(name), True)
            self._put(name, entries)
            await self._clock.sleep(interval)

    def _put(self, name: str, entries: tuple[str, ...] | None) -> None:
        provided = self._provided.get(name)
        if provided is not None and provided.entries != entries:
            provided.entries = entries
            self._changed.set()

    async def __aenter__(self) -> Self:
        """Begin without lists."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Read no more."""
        tasks = [each.task for each in self._provided.values()]
        self.follow({})
        if tasks:
            await asyncio.wait(tasks)


async def fetch(parameters: ListChecker) -> tuple[str, ...]:
    """What the service says now, sorted and each once; raises when that is no list of the handler's kind of entries."""
    async with (
        http_client(parameters.ca_certificates, _TIMEOUT_SECONDS) as client,
        asyncio.timeout(_TIMEOUT_SECONDS),
        client.stream("GET", str(parameters.provider_url)) as response,
    ):
        response.raise_for_status()
        body = bytearray()
        async for part in response.aiter_bytes():
            body += part
            if len(body) > MAX_BYTES:
                raise ValueError(f"the list has more than {MAX_BYTES} bytes")
    return await asyncio.to_thread(_accepted, bytes(body), parameters.entry_type)


def _accepted(body: bytes, kind: str) -> tuple[str, ...]:
    """An entry that the engine would refuse would take the handler with it, and let everybody pass."""
    entries = parse(body)
    for entry in entries:
        try:
            if kind == "IP_ADDRESSES":
                ipaddress.ip_network(entry, strict=False)
            elif kind == "REGEX":
                re.compile(entry)
        except (ValueError, re.error) as error:
            raise ValueError(f"entry {entry[:100]!r}: {error}") from error
    return entries


def parse(body: bytes) -> tuple[str, ...]:
    """A list of YAML or JSON, or one entry a line; empty lines and those that begin with # are left out.

    ValueError when it is neither or has too many entries.
    """
    text = body.decode()
    lines = [line.strip() for line in text.splitlines()]
    first = next((line for line in lines if line and not line.startswith("#")), "")
    if first.startswith(("[", "- ", "---")):
        try:
            found = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except (yaml.YAMLError, RecursionError) as error:
            raise ValueError(f"the list isn't YAML: {str(error)[:200]}") from error
        if not isinstance(found, list) or not all(isinstance(entry, str | int | float) for entry in found):
            raise ValueError("the list isn't a list of texts")
        entries = [str(entry) for entry in found]
    else:
        entries = [line for line in lines if line and not line.startswith("#")]
    if len(entries) > MAX_ENTRIES:
        raise ValueError(f"the list has {len(entries)} entries; at most {MAX_ENTRIES} are taken")
    return tuple(sorted(set(entries)))


def _part(name: str) -> str:
    return f"list of {name}"
