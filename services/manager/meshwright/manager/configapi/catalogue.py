"""The objects that are in force, validated, with the mesh they describe; follows a configuration source.

One decision to know: what comes from the store was judged when it was applied, so an object that no longer parses (an
older manager's) is left out and told, and the rest serves on. What comes from a folder was judged by nobody: there one
fault keeps the last good state, as a refused `apply` would.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import structlog

from meshwright.core import errors
from meshwright.core.config import Key, Snapshot
from meshwright.core.health import Health
from meshwright.manager.model import mesh, parse, resolution, review
from meshwright.manager.model.fault import Fault
from meshwright.manager.model.mesh import Discovered, Mesh

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class State:
    """All valid objects of one revision."""

    revision: int = 0
    objects: Mapping[Key, parse.Parsed] = field(default_factory=dict)
    mesh: mesh.Mesh = mesh.EMPTY
    revisions: Mapping[Key, int] = field(default_factory=dict)  # which revision last changed an object, where known
    discovered: Mapping[str, Discovered] = field(default_factory=dict)  # what a cluster has, by namespace
    registered: Mapping[Key, parse.Parsed] = field(default_factory=dict)  # workloads that say themselves that they live

    def built(self, revision: int, objects: Mapping[Key, parse.Parsed]) -> Mesh:
        """Return the mesh that other objects would make, with all that isn't configuration as it is."""
        return resolution.build(revision, self.all(objects), (self.all(self.objects), self.mesh), self.discovered)

    def all(self, objects: Mapping[Key, parse.Parsed]) -> Mapping[Key, parse.Parsed]:
        """Return objects together with what is registered; where both name a workload, the object is meant."""
        return {**self.registered, **objects} if self.registered else objects


class Catalogue:
    """The newest state. `strict`: a snapshot with a fault is refused as a whole; `empty` is the mesh to begin with."""

    def __init__(
        self, health: Health, *, strict: bool, on_change: Callable[[mesh.Mesh], None], empty: mesh.Mesh = mesh.EMPTY
    ) -> None:
        self.state = State(mesh=empty)
        self._health, self._strict, self._on_change = health, strict, on_change
        self._read: dict[Key, tuple[str, parse.Parsed]] = {}  # the source's texts; equal text needs no second look
        self._changed = asyncio.Event()
        self.started = False

    def discover(self, discovered: Mapping[str, Discovered]) -> None:
        """Take what a cluster has now; configuration and its revision stay."""
        state = self.state
        if discovered is state.discovered:
            return
        before = state.all(state.objects)
        self._replace(replace(state, discovered=discovered), before)

    def register(self, registered: Mapping[Key, parse.Parsed]) -> None:
        """Take what is registered now; configuration and its revision stay."""
        state = self.state
        if registered != state.registered:
            self._replace(replace(state, registered=registered), state.all(state.objects))

    def _replace(self, state: State, before: Mapping[Key, parse.Parsed]) -> None:
        """Take a state whose mesh is still made from `before`."""
        built = resolution.build(state.revision, state.all(state.objects), (before, state.mesh), state.discovered)
        self.state = replace(state, mesh=built)
        if self.started:  # before that there is only half a mesh
            self._on_change(built)

    def start(self, snapshot: Snapshot) -> None:
        """Take the first snapshot; raise ConfigError for its first fault where faults aren't tolerated."""
        faults = self.update(snapshot)
        if faults and self._strict:
            raise errors.ConfigError("\n".join(faults))

    def update(self, snapshot: Snapshot) -> list[str]:
        """Take the source's newest snapshot; return what is wrong with it."""
        if snapshot.revision == self.state.revision and self.started:
            return []
        faults: list[Fault] = []
        read: dict[Key, tuple[str, parse.Parsed]] = {}
        sources: dict[Key, str] = {}
        for key, found in snapshot.objects.items():
            text, known = self._read.get(key, ("", None))
            result = known if known is not None and text == found.json else parse.parse(found.json)
            if isinstance(result, parse.Parsed) and result.key in sources:  # one object in two versions of its kind
                message = f"is written twice: in {sources[result.key]} and, in another version, in {found.source}"
                faults.append(Fault(result.key, "apiVersion", f"{message}; keep one"))
            elif isinstance(result, parse.Parsed):
                read[key] = (found.json, result)
                sources[result.key] = found.source
            else:
                faults += result
                sources |= {fault.key: found.source for fault in result if fault.key not in sources}
                _log.warning("object_unusable", object=str(key), source=found.source, fault=result[0].message)
        before, discovered = self.state.objects, self.state.discovered
        objects = {result.key: result for _, result in read.values()}
        built = self.state.built(snapshot.revision, objects)
        if self._strict:
            changed = {key: found for key, found in objects.items() if before.get(key) is not found}
            faults += review.review(built, changed, review.namespaces(objects) | {*discovered}).violations
            if faults:
                told = _sentence(faults[0], sources)
                self._health.outage("mesh", f"the last good configuration is served on: {told}")
                return [_sentence(fault, sources) for fault in faults]
            self._health.set("mesh", True)
        self._read = read
        revisions = _revisions(sources)
        self.state = State(snapshot.revision, objects, built, revisions, discovered, self.state.registered)
        self.started = True
        self._on_change(built)
        self._changed.set()
        self._changed = asyncio.Event()
        return [_sentence(fault, sources) for fault in faults]

    async def loaded(self) -> None:
        """Return when there is a state."""
        while not self.started:
            await self._changed.wait()

    async def beyond(self, revision: int) -> None:
        """Return when the state is later than `revision`."""
        while self.state.revision <= revision:
            await self._changed.wait()

    async def reached(self, revision: int, timeout: float) -> None:
        """Return when the state is at `revision` or later; raise DeadlineExceeded after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while self.state.revision < revision:
                    await self._changed.wait()
        except TimeoutError:
            raise errors.DeadlineExceeded(
                f"revision {revision} is committed, but this manager has only read up to {self.state.revision}: "
                "it will follow; look at its health if it doesn't"
            ) from None


def _revisions(sources: Mapping[Key, str]) -> dict[Key, int]:
    """The store says as an object's source ``revision 7``; files have no revisions."""
    texts = {key: source.removeprefix("revision ") for key, source in sources.items() if source.startswith("revision ")}
    return {key: int(text) for key, text in texts.items() if text.isdecimal()}


def _sentence(fault: Fault, sources: Mapping[Key, str]) -> str:
    source = f"{sources[fault.key]}: " if fault.key in sources else ""
    field = f"{fault.field}: " if fault.field else ""
    return f"{source}{fault.key}: {field}{fault.message}"
