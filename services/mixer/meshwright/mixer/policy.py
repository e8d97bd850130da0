"""Keeps the engine's policy equal to the configuration: every snapshot is compiled, and what compiles is loaded.

One decision to know: a snapshot that doesn't compile changes nothing (the last good policy decides on, and health says
why), but mixer doesn't begin to serve before a first policy was loaded: an empty one would let everything pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from meshwright.core.config import Snapshot, Source
from meshwright.core.errors import ConfigError
from meshwright.core.health import Health
from meshwright.mixer import metrics
from meshwright.mixer.adapter.v1 import Adapter
from meshwright.mixer.config.compiler import Compiled
from meshwright.mixer.validate import Load, compile_checked

PART = "policy"

_log = structlog.get_logger(__name__)


class PolicyFollower:
    """Loads policies into the engine; `loaded` hears of each that came into force."""

    def __init__(
        self,
        source: Source,
        adapters: Mapping[str, Adapter],
        load: Load,
        loaded: Callable[[Compiled], None],
        health: Health,
        *,
        export: bool,
    ) -> None:
        self._source, self._adapters, self._load, self._loaded = source, adapters, load, loaded
        self._health, self._export = health, export
        self._revision: int | None = None
        self.first = asyncio.Event()

    async def follow(self) -> None:
        """Follow the configuration for as long as the task lives."""
        async for snapshot in self._source.changes():
            if snapshot.revision == self._revision:
                continue
            try:
                await self.take(snapshot)
            except ConfigError as error:
                self._refused(snapshot, error)

    async def take(self, snapshot: Snapshot) -> None:
        """Compile and load one snapshot; ConfigError when it can't be used, and then nothing has changed.

        Compiling runs in a thread: a large configuration takes a while, and decisions don't wait for Python.
        """
        compiled = await asyncio.to_thread(
            compile_checked,
            [*snapshot.objects.values()],
            self._adapters,
            self._load,
            revision=str(snapshot.revision),
            export=self._export,
        )
        self._loaded(compiled)
        self._revision = snapshot.revision
        self._health.set(PART, True)
        self.first.set()
        metrics.POLICY_LOADS.labels("loaded").inc()
        metrics.POLICY_RULES.set(compiled.rules)
        metrics.POLICY_REVISION.set(snapshot.revision)
        _log.info("policy_loaded", revision=snapshot.revision, rules=compiled.rules)
        for warning in compiled.warnings:
            _log.info("policy_warning", revision=snapshot.revision, warning=str(warning))

    def _refused(self, snapshot: Snapshot, error: ConfigError) -> None:
        metrics.POLICY_LOADS.labels("refused").inc()
        _log.warning("policy_refused", revision=snapshot.revision, reason=str(error))
        if self.first.is_set():
            self._health.degrade(PART, str(error))
        else:
            self._health.set(PART, False, str(error))
