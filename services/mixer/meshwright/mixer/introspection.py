"""meshwright.mixer.v1.Introspection: why a request is decided so, which attributes come, what was decided of late.

One decision to know: the engine keeps what it costs next to nothing to keep, and everything else happens here, when
somebody asks. A follower reads the log a few times a second; one that is too slow misses what the log has forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, Protocol

from meshwright.api.mixer.v1 import introspection_pb2, introspection_pb2_grpc
from meshwright.core import clock as clocks
from meshwright.core import errors

_POLL_SECONDS = 0.2

Decision = introspection_pb2.Decision


class Observed(Protocol):
    """The part of the engine (meshwright.dataplane.policy.Engine) that is asked."""

    def explain(self, request: bytes) -> bytes:
        """An ExplainResponse."""

    def attributes(self, prefix: str) -> bytes:
        """An AttributesResponse."""

    def decisions(self, start: int) -> bytes:
        """A DecisionBatch."""


class IntrospectionServicer(introspection_pb2_grpc.IntrospectionServicer):
    """Answers from one engine."""

    def __init__(self, engine: Observed, clock: clocks.Clock | None = None) -> None:
        self._engine, self._clock = engine, clock or clocks.SystemClock()

    async def Explain(self, request: Any, context: Any) -> Any:
        """Explain the decision about a request."""
        try:
            told = await asyncio.to_thread(self._engine.explain, request.request.SerializeToString())
        except ValueError as error:
            raise errors.ConfigError(str(error), field="request") from error
        return introspection_pb2.ExplainResponse.FromString(told)

    async def Attributes(self, request: Any, context: Any) -> Any:
        """Tell which attributes were seen."""
        told = await asyncio.to_thread(self._engine.attributes, request.prefix)
        return introspection_pb2.AttributesResponse.FromString(told)

    async def Decisions(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Tell decisions, those that are kept and, when asked to follow, those to come."""
        start, kept = 0, []
        while batch := self._read(start):
            start = batch.next
            kept += [each for each in batch.decisions if fits(request, each)]
        for each in kept[-request.last :] if request.last else kept:
            yield each
        while request.follow:
            await self._clock.sleep(_POLL_SECONDS)
            while batch := self._read(start):
                start = batch.next
                for each in batch.decisions:
                    if fits(request, each):
                        yield each

    def _read(self, start: int) -> Any:
        """The next batch, or None when there is nothing new."""
        batch = introspection_pb2.DecisionBatch.FromString(self._engine.decisions(start))
        return batch if batch.decisions else None


def fits(request: Any, decision: Any) -> bool:
    """Whether a decision is what was asked for."""
    return all(_judged(request, decision))


def _judged(request: Any, decision: Any) -> Iterator[bool]:
    if request.id:
        yield decision.id == request.id
    if request.rule:
        rules = {decision.rule, *(each.rule for each in decision.dry_runs)}
        yield any(rule == request.rule or rule.rpartition(".")[0] == request.rule for rule in rules)
    if request.HasField("code"):
        yield decision.code == request.code
    if request.dry_run:
        yield bool(decision.dry_runs)
    if request.denied:
        yield decision.code != 0
    if request.attribute:
        yield any(each.attribute == request.attribute for each in decision.reads)
    if request.HasField("since"):
        yield decision.time.ToNanoseconds() >= request.since.ToNanoseconds()
