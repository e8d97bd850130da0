"""The registrations that this replica holds: one task and one lease for each, until its owner no longer renews it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import structlog

from meshwright.core import clock as clocks
from meshwright.core import errors
from meshwright.core.store import Lease, Store
from meshwright.manager.sources.registration.instance import Instance, read

MAX_INSTANCES = 10_000  # that one replica holds
MAX_OF_ONE_IDENTITY = 256
SHORTEST, LONGEST, USUAL = 5.0, 3600.0, 30.0  # seconds

Spawn = Callable[[Coroutine[Any, Any, Any], str], asyncio.Task[Any]]
_Place = tuple[str, str]  # namespace, name

_log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Held:
    instance: Instance
    ttl: float
    until: float
    written: asyncio.Future[None]
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[Any] | None = None


class Leases:
    """`spawn` starts a task that ends with the service."""

    def __init__(self, store: Store, spawn: Spawn, clock: clocks.Clock | None = None) -> None:
        self._store, self._spawn, self._clock = store, spawn, clock or clocks.SystemClock()
        self._held: dict[_Place, _Held] = {}

    async def register(self, instance: Instance, ttl: float) -> float:
        """Hold an instance for `ttl` seconds (0: the usual time); return them. A former one of the name is replaced."""
        ttl = ttl or USUAL
        if not SHORTEST <= ttl <= LONGEST:
            raise errors.ConfigError(f"is {ttl:g}", field="ttl_seconds", remedy=f"{SHORTEST:g} to {LONGEST:g} seconds")
        instance.checked()
        place = instance.namespace, instance.name
        await self._owned_elsewhere(instance)
        await self._end(place, instance)
        owned = sum(
            (held.instance.namespace, held.instance.service_account) == (instance.namespace, instance.service_account)
            for held in self._held.values()
        )
        if len(self._held) >= MAX_INSTANCES or owned >= MAX_OF_ONE_IDENTITY:
            raise errors.Exhausted(
                f"{len(self._held)} instances are registered here, {owned} of this identity: at most {MAX_INSTANCES} "
                f"and {MAX_OF_ONE_IDENTITY} are held"
            )
        held = _Held(instance, ttl, self._clock.monotonic() + ttl, asyncio.get_running_loop().create_future())
        self._held[place] = held
        held.task = self._spawn(self._hold(place, held), f"hold {instance.namespace}/{instance.name}")
        await held.written
        return ttl

    def renew(self, namespace: str, service_account: str, name: str) -> float:
        """Let an instance's time begin anew and return it; NotFound when it isn't held here, or is somebody else's."""
        held = self._held.get((namespace, name))
        if held is None or held.instance.service_account != service_account:
            raise errors.NotFound(f"{name} of namespace {namespace} isn't registered here: register it again")
        held.until = self._clock.monotonic() + held.ttl
        return held.ttl

    async def deregister(self, namespace: str, service_account: str, name: str) -> None:
        """Remove an instance, whichever replica holds it."""
        mine = Instance(namespace, service_account, name, "")
        await self._end((namespace, name), mine)
        await self._owned_elsewhere(mine)
        await self._store.delete(mine.path)

    async def _end(self, place: _Place, instance: Instance) -> None:
        """End what this replica holds at a place, if it is the owner's."""
        while held := self._held.get(place):
            if held.instance.service_account != instance.service_account:
                raise _others(instance)
            held.changed.set()
            if held.task:
                await asyncio.wait({held.task})

    async def _owned_elsewhere(self, instance: Instance) -> None:
        entry = await self._store.get(instance.path)
        if entry is not None:
            found = read(entry.value)
            if found is not None and found.service_account != instance.service_account:
                raise _others(instance)

    async def _hold(self, place: _Place, held: _Held) -> None:
        try:
            async with self._store.lease(held.ttl) as lease:
                await self._store.put(held.instance.path, held.instance.document().encode(), lease=lease)
                held.written.set_result(None)
                await self._wait(held, lease)
        except errors.MeshwrightError as error:
            if held.written.done():
                _log.warning("registration_lost", instance="/".join(place), reason=str(error))
            else:
                held.written.set_exception(error)
        finally:
            if not held.written.done():
                held.written.cancel()
            if self._held.get(place) is held:
                del self._held[place]

    async def _wait(self, held: _Held, lease: Lease) -> None:
        """Return when the time is over, the lease is lost, or somebody ends it."""
        while (rest := held.until - self._clock.monotonic()) > 0:
            waits = {
                asyncio.ensure_future(wait)
                for wait in (held.changed.wait(), lease.lost.wait(), self._clock.sleep(rest))
            }
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await wait
            if held.changed.is_set() or lease.lost.is_set():
                return


def _others(instance: Instance) -> errors.Forbidden:
    return errors.Forbidden(
        f"{instance.name} of namespace {instance.namespace} is registered by another service account: use another name"
    )
