"""Keeps the engine's policy equal to the configuration: every snapshot is compiled, and what is good of it is loaded.

One decision to know: a document with a fault is left out with what depends on it, and health says so; but mixer doesn't
begin to serve while no rule that was written is good: an empty policy would let everything pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from meshwright.core.config import Snapshot, Source
from meshwright.core.errors import ConfigError
from meshwright.core.health import Health
from meshwright.mixer import metrics
from meshwright.mixer.config.compiled import Compiled
from meshwright.mixer.config.loader import PolicyLoader
from meshwright.mixer.config.violation import PolicyError, Violation
from meshwright.mixer.provided_lists import ProvidedLists

PART = "policy"
_LOGGED = 100  # documents that were left out, in the log of one policy

_log = structlog.get_logger(__name__)


class PolicyFollower:
    """Compiles policies, lets an engine that serves nobody `check` them, and has those that pass loaded."""

    def __init__(
        self,
        source: Source,
        loader: PolicyLoader,
        load: Callable[[Compiled], Awaitable[None]],
        health: Health,
        lists: ProvidedLists,
    ) -> None:
        self._source, self._loader, self._load, self._health = source, loader, load, health
        self._lists = lists
        self._revision: int | None = None
        self._lock = asyncio.Lock()
        self.first = asyncio.Event()
        self.left_out: tuple[Violation, ...] = ()
        """What is wrong with the configuration in force."""

    async def follow(self) -> None:
        """Follow the configuration for as long as the task lives."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_lists(), name="follow provided lists")
            async for snapshot in self._source.changes():
                if snapshot.revision != self._revision:
                    await self._try(snapshot)

    async def _follow_lists(self) -> None:
        async for _ in self._lists.changes():
            if self.first.is_set():
                await self._try(self._source.current())

    async def _try(self, snapshot: Snapshot) -> None:
        try:
            await self.take(snapshot)
        except ConfigError as error:
            self._refused(snapshot, str(error))
        except Exception as error:  # no document may end mixer: the last policy decides on
            _log.exception("policy_not_compiled", revision=snapshot.revision)
            self._refused(snapshot, f"the compiler failed, which is a fault of mixer's: {error!r}")

    async def take(self, snapshot: Snapshot) -> None:
        """Compile and load one snapshot; ConfigError when it can't be used, and then nothing has changed.

        Compiling runs in a thread: a large configuration takes a while, and decisions don't wait for Python.
        """
        async with self._lock:
            await self._take(snapshot)

    async def _take(self, snapshot: Snapshot) -> None:
        documents, revision = [*snapshot.objects.values()], str(snapshot.revision)
        compiled = await asyncio.to_thread(self._loader.load, documents, revision=revision, lists=self._lists.current())
        if not compiled.is_left and not self.first.is_set():
            raise PolicyError(compiled.dropped)
        await self._load(compiled)
        self._lists.follow(compiled.providers)
        self._revision, self.left_out = snapshot.revision, compiled.dropped
        if compiled.dropped:
            self._health.degrade(PART, f"left out: {PolicyError(compiled.dropped)}")
        else:
            self._health.set(PART, True)
        self.first.set()
        metrics.POLICY_LOADS.labels("loaded").inc()
        metrics.POLICY_RULES.set(compiled.rules)
        metrics.POLICY_DROPPED.set(len({each.object for each in compiled.dropped}))
        metrics.POLICY_REVISION.set(snapshot.revision)
        _log.info("policy_loaded", revision=snapshot.revision, rules=compiled.rules)
        for violation in compiled.dropped[:_LOGGED]:
            _log.warning("document_left_out", revision=snapshot.revision, reason=str(violation))
        for warning in compiled.warnings[:_LOGGED]:
            _log.info("policy_warning", revision=snapshot.revision, warning=str(warning))

    def _refused(self, snapshot: Snapshot, reason: str) -> None:
        metrics.POLICY_LOADS.labels("refused").inc()
        _log.warning("policy_refused", revision=snapshot.revision, reason=reason)
        if self.first.is_set():
            self._health.degrade(PART, reason)
        else:
            self._health.set(PART, False, reason)
