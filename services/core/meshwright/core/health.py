"""What works and what doesn't in this process, told to people over HTTP (`admin`) and to peers over grpc.health.v1.

One decision to know: there are three states. A *degraded* part (etcd away, a broken file) serves its last good state,
so the process stays ready and says what is wrong; only a *failed* part takes readiness away. Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

_log = structlog.get_logger(__name__)


class State(enum.StrEnum):
    """How a part is doing."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Condition:
    """The state of one part, with the reason when it isn't well."""

    state: State
    reason: str = ""


class Health:
    """The conditions of this process's parts. Parts named in `expected` count as failed until they are first set."""

    def __init__(self, *expected: str) -> None:
        self._conditions = {part: Condition(State.FAILED, "starting") for part in expected}
        self._changed = asyncio.Event()

    def set(self, part: str, ok: bool, reason: str = "") -> None:
        """Say that `part` works, or that this process can't serve because it doesn't."""
        self._record(part, Condition(State.OK if ok else State.FAILED, reason))

    def degrade(self, part: str, reason: str) -> None:
        """Say that `part` serves its last good state."""
        self._record(part, Condition(State.DEGRADED, reason))

    def outage(self, part: str, reason: str) -> None:
        """Say that `part` lost its backend: degraded if it had worked before, failed if it never has."""
        known = self._conditions.get(part)
        worked = known is not None and known.state is not State.FAILED
        self._record(part, Condition(State.DEGRADED if worked else State.FAILED, reason))

    def forget(self, part: str) -> None:
        """Stop reporting `part`, which isn't there any more."""
        if self._conditions.pop(part, None) is not None:
            self._notify()

    def ready(self) -> bool:
        """Return whether no part has failed."""
        return all(condition.state is not State.FAILED for condition in self._conditions.values())

    def state(self) -> State:
        """Return the worst state of all parts."""
        states = {condition.state for condition in self._conditions.values()}
        return next((state for state in (State.FAILED, State.DEGRADED) if state in states), State.OK)

    def conditions(self) -> Mapping[str, Condition]:
        """Return every part's condition at this moment."""
        return MappingProxyType(dict(self._conditions))

    async def changes(self) -> AsyncIterator[Mapping[str, Condition]]:
        """Yield the conditions now and after each change; changes that come faster than the reader are merged."""
        while True:
            changed = self._changed
            yield self.conditions()
            await changed.wait()

    async def wait_ready(self) -> None:
        """Return when no part has failed; the caller sets the deadline."""
        async for _ in self.changes():
            if self.ready():
                return

    def _record(self, part: str, condition: Condition) -> None:
        before = self._conditions.get(part)
        if before == condition:
            return
        self._conditions[part] = condition
        if before is None or before.state is not condition.state:
            write = _log.info if condition.state is State.OK else _log.warning
            write("health_changed", part=part, state=condition.state.value, reason=condition.reason)
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class HealthServicer(health_pb2_grpc.HealthServicer):
    """grpc.health.v1.Health over `Health`: every service of a server shares the process's readiness.

    `services` are the full names that are known beside the empty one; others are answered as the protocol says
    (Check: NOT_FOUND, Watch: SERVICE_UNKNOWN).
    """

    def __init__(self, health: Health, services: tuple[str, ...] = ()) -> None:
        self._health, self._services = health, frozenset(("", *services))

    async def Check(self, request: Any, context: Any) -> Any:
        """Answer SERVING or NOT_SERVING."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service[:200]!r} here")
        return health_pb2.HealthCheckResponse(status=self._status())

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Send the status now and whenever it changes."""
        if request.service not in self._services:
            yield health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
            await asyncio.Event().wait()  # until the caller leaves: services don't appear later
        sent = None
        async for _ in self._health.changes():
            status = self._status()
            if status != sent:
                sent = status
                yield health_pb2.HealthCheckResponse(status=status)

    def _status(self) -> int:
        response = health_pb2.HealthCheckResponse
        return int(response.SERVING if self._health.ready() else response.NOT_SERVING)
