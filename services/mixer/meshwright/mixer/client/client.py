"""The client: each Check is answered from the caches where they can, else by mixer; records go in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc

from meshwright.api.istio.mixer.v1 import mixer_pb2
from meshwright.core import clock as clocks
from meshwright.mixer.client.calls import Calls
from meshwright.mixer.client.check_cache import CheckCache, Precondition
from meshwright.mixer.client.encoding import Attributes
from meshwright.mixer.client.options import Options
from meshwright.mixer.client.prefetch import Ask, Prefetch
from meshwright.mixer.client.reference_cache import ReferenceCache
from meshwright.mixer.client.references import References
from meshwright.mixer.client.reports import Reports
from meshwright.mixer.client.statistics import Statistics

_OK, _INVALID_ARGUMENT, _RESOURCE_EXHAUSTED, _INTERNAL, _UNAVAILABLE = 0, 3, 8, 13, 14


@dataclass(frozen=True, slots=True)
class Decision:
    """What came of a Check. `code` is a google.rpc.Code, 0 passes; a refused quota is 8 (RESOURCE_EXHAUSTED)."""

    code: int
    message: str = ""
    granted: Mapping[str, int] = field(default_factory=dict)
    """By quota: the amount, or how much was given back for a release."""
    route_directive: mixer_pb2.RouteDirective | None = None
    """Headers to change, or what to answer in place of the service."""
    is_cached: bool = False
    is_failed_open: bool = False
    """Nobody decided: mixer gave no answer."""

    @property
    def is_allowed(self) -> bool:
        """Whether the request may pass."""
        return self.code == _OK


class MixerClient:
    """`async with MixerClient(channel) as mixer: await mixer.check(…)`.

    `channel` is one of `meshwright.core.grpc.Channel` or `grpc.aio`; it stays the caller's to close. One client serves
    all tasks of a loop.
    """

    def __init__(self, channel: Any, options: Options | None = None, *, clock: clocks.Clock | None = None) -> None:
        self.options, self.statistics = options or Options(), Statistics()
        self._clock = clock or clocks.SystemClock()
        self._calls = Calls(channel, self.options, self._clock)
        self._checks = CheckCache(self.options.check_entries)
        self._quotas: ReferenceCache[Prefetch] = ReferenceCache(self.options.quota_entries)
        self._reports = Reports(self._calls, self.options, self._clock, self.statistics)
        self._sender: asyncio.Task[None] | None = None
        self._prefetches: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Begin to send records."""
        self._sender = asyncio.create_task(self._reports.run(), name="send mixer reports")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send the records that wait, and end."""
        ending = [*self._prefetches]
        for task in ending:
            task.cancel()
        if self._sender is not None:
            self._reports.stop()
            ending.append(self._sender)
            if kind is not None:
                self._sender.cancel()
        if ending:
            await asyncio.wait(ending)

    async def check(
        self, attributes: Attributes, quotas: Mapping[str, int] | None = None, *, timeout: float | None = None
    ) -> Decision:
        """Decide about a request with these attributes, and charge it these amounts of quotas (negative: give back).

        Raises TypeError for a value that no attribute can have. Mixer's failures don't raise: the options say what then
        passes.
        """
        quotas = quotas or {}
        self.statistics.checks += 1
        self.statistics.quotas += len(quotas)
        now = self._clock.monotonic()
        cached = self._checks.find(attributes, now)
        if cached is None:
            return await self._ask(attributes, quotas, {}, timeout)
        if cached.status.code != _OK:
            self.statistics.cached_checks += 1
            return _decision(cached, {}, {}, is_cached=True)
        granted: dict[str, int] = {}
        left: dict[str, int] = {}
        for name, amount in quotas.items():
            prefetch = self._prefetch(attributes, name) if amount > 0 else None
            if prefetch is None:
                left[name] = amount
                continue
            self.statistics.cached_quotas += 1
            is_granted, ask = prefetch.take(amount, now, may_ask=len(self._prefetches) < self.options.prefetches)
            granted[name] = amount if is_granted else 0
            if ask is not None:
                self._begin(attributes, name, prefetch, ask)
        if left:
            return await self._ask(attributes, left, granted, timeout)
        self.statistics.cached_checks += 1
        return _decision(cached, quotas, granted, is_cached=True)

    def report(self, attributes: Attributes) -> bool:
        """Send a record with the next batch; False: too many wait already, and it is dropped."""
        return self._reports.add(attributes)

    async def flush(self) -> None:
        """Send the records that wait now."""
        await self._reports.finish()

    async def _ask(
        self, attributes: Attributes, quotas: Mapping[str, int], granted: dict[str, int], timeout: float | None
    ) -> Decision:
        """`quotas` are asked for as they are; `granted` come from what was fetched ahead."""
        wanted = {**quotas, **dict.fromkeys(granted, 1)}
        try:
            response = await self._calls.check(
                attributes, {name: (amount, False) for name, amount in quotas.items()}, timeout
            )
        except grpc.aio.AioRpcError as error:
            self._failed(error)
            if not self.options.network_fail_open:
                return Decision(_UNAVAILABLE, f"mixer gave no answer: {error.code().name}: {error.details()}")
            return _decision(Precondition(), wanted, {**granted, **quotas}, is_failed_open=True)
        now = self._clock.monotonic()
        if not response.HasField("precondition"):
            return Decision(_INVALID_ARGUMENT, "mixer's answer has no precondition")
        if response.precondition.status.code == _INTERNAL and self.options.network_fail_open:
            return _decision(Precondition(), wanted, {**granted, **quotas}, is_failed_open=True)
        self._checks.put(attributes, response.precondition, now)
        if response.precondition.status.code == _OK:
            for name, amount in quotas.items():
                granted[name] = self._strict(attributes, name, amount, response, now)
        return _decision(response.precondition, wanted, granted)

    def _strict(
        self, attributes: Attributes, name: str, amount: int, response: mixer_pb2.CheckResponse, now: float
    ) -> int:
        """What the answer grants of a quota; and from now on it is fetched ahead, where amounts last."""
        result = response.quotas.get(name)
        if result is None:
            return amount if self.options.network_fail_open else 0
        granted: int = result.granted_amount
        is_full = granted >= amount
        has_references = result.HasField("referenced_attributes")
        references = References.read(result.referenced_attributes, attributes) if has_references else None
        # Granted for no time: it lasts until it is given back, so that nothing may be taken ahead.
        lasts = not is_full or result.valid_duration.ToTimedelta().total_seconds() > 0
        if amount > 0 and lasts and references and self._prefetch(attributes, name) is None:
            prefetch = Prefetch(self.options, is_open=is_full, asked_at=now)
            self._quotas.put(references, attributes, prefetch, name)
        return granted

    def _prefetch(self, attributes: Attributes, name: str) -> Prefetch | None:
        return next((prefetch for _, prefetch in self._quotas.find(attributes, name)), None)

    def _begin(self, attributes: Attributes, name: str, prefetch: Prefetch, ask: Ask) -> None:
        task = asyncio.create_task(self._fetch(dict(attributes), name, prefetch, ask), name=f"prefetch {name}")
        self._prefetches.add(task)
        task.add_done_callback(self._prefetches.discard)

    async def _fetch(self, attributes: Attributes, name: str, prefetch: Prefetch, ask: Ask) -> None:
        self.statistics.prefetches += 1
        try:
            response = await self._calls.check(attributes, {name: (ask.amount, True)})
        except grpc.aio.AioRpcError as error:
            self._failed(error)
            prefetch.failed(ask, self._clock.monotonic())
            return
        now = self._clock.monotonic()
        if response.HasField("precondition"):
            self._checks.put(attributes, response.precondition, now)
        result = response.quotas.get(name)
        if result is not None:
            prefetch.answered(ask, result.granted_amount, result.valid_duration.ToTimedelta().total_seconds(), now)
        elif response.precondition.status.code != _OK:
            # Denied meanwhile: nothing was charged, and nothing is granted.
            prefetch.answered(ask, 0, 0, now)
        else:
            prefetch.failed(ask, now)

    def _failed(self, error: grpc.aio.AioRpcError) -> None:
        self.statistics.failed_calls += 1
        self.statistics.last_failure = f"{error.code().name}: {error.details()}"


def _decision(
    precondition: Precondition,
    quotas: Mapping[str, int],
    granted: Mapping[str, int],
    *,
    is_cached: bool = False,
    is_failed_open: bool = False,
) -> Decision:
    code, message = precondition.status.code, precondition.status.message
    refused = sorted(name for name, amount in quotas.items() if amount > 0 and granted.get(name, 0) <= 0)
    if code == _OK and refused:
        code, message = _RESOURCE_EXHAUSTED, f"quota is exhausted: {', '.join(refused)}"
    directive = precondition.route_directive if precondition.HasField("route_directive") else None
    return Decision(
        code, message, granted if code in (_OK, _RESOURCE_EXHAUSTED) else {}, directive, is_cached, is_failed_open
    )
