"""Reads what the ledger keeps: who changed what and when, and how every object was at a revision.

One decision to know: nothing is held between two calls. Keys are listed without their values, which is what finding a
place in the history needs; values are fetched for the objects that an answer is about. The floor is read last, so that
what a trim took away meanwhile is told as `Compacted` and never taken for deleted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from meshwright.core import errors
from meshwright.core.config import layout
from meshwright.core.config.layout import Commit, Place
from meshwright.core.config.objects import Key
from meshwright.core.store import Store

_LIST_SECONDS = 20.0
_AT_ONCE = 16  # values that are being fetched


class Change(Enum):
    """What a revision did to an object."""

    CREATED = "created"
    CHANGED = "changed"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision and what it did, in the order of keys."""

    commit: Commit
    changes: tuple[tuple[Key, Change], ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """One object at two revisions, as JSON text; None: it wasn't there."""

    key: Key
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Events:
    """What one revision wrote: an object's JSON, or None for what it deleted."""

    commit: Commit
    objects: Mapping[Key, str | None]


class History:
    """The history below a ledger's keys."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def bounds(self) -> tuple[int, int]:
        """Return (floor, head): states from the floor on are kept, and what each revision above it changed."""
        head, floor = await asyncio.gather(self._store.get(layout.HEAD), self._store.get(layout.FLOOR))
        newest = layout.head_revision(head.value if head else None)
        return min(layout.head_revision(floor.value if floor else None), newest), newest

    async def commit(self, revision: int) -> Commit | None:
        """Return a revision's record; also below the floor, as long as something that it wrote is in force."""
        entry = await self._store.get(layout.commit_path(revision))
        return Commit.decode(entry.key, entry.value) if entry else None

    async def revisions(
        self, *, kinds: Collection[str] = (), namespace: str = "", name: str = "", before: int = 0, limit: int = 100
    ) -> list[Revision]:
        """Return up to `limit` revisions, the newest first; those that changed an object that fits, and of that only.

        Empty `kinds`, `namespace` and `name` fit all; `before` leaves out that revision and newer ones.
        """
        index = await self._index()
        found: dict[int, list[tuple[Key, Change]]] = {}
        for key, places in index.places.items():
            if (kinds and key.kind not in kinds) or namespace not in ("", key.namespace) or name not in ("", key.name):
                continue
            for revision, change in _changes(places):
                if index.floor < revision and (not before or revision < before):
                    found.setdefault(revision, []).append((key, change))
        newest = sorted(found, reverse=True)[:limit]
        return [
            Revision(index.commits[revision], tuple(sorted(found[revision], key=lambda change: change[0])))
            for revision in newest
        ]

    async def state(self, revision: int) -> dict[Key, Place]:
        """Return where every object of a revision lies; raise Compacted, or NotFound for one that is yet to come."""
        return (await self._index()).at(revision)

    async def differences(self, older: int, newer: int, *, after: Key | None = None) -> AsyncIterator[Difference]:
        """Yield how objects differ between two states, in the order of keys, from behind `after` on."""
        index = await self._index()
        one, other = index.at(older), index.at(newer)
        keys = sorted(
            key for key in {*one, *other} if one.get(key) != other.get(key) and (after is None or key > after)
        )
        for start in range(0, len(keys), _AT_ONCE):
            batch = keys[start : start + _AT_ONCE]
            places = [side.get(key) for key in batch for side in (one, other)]
            texts = await self.texts(place for place in places if place)
            for key in batch:
                before, now = ((texts[side[key]] if key in side else None) for side in (one, other))
                if before != now:
                    yield Difference(key, before, now)

    async def texts(self, places: Iterable[Place]) -> dict[Place, str]:
        """Return the JSON at these places; Compacted when one went meanwhile."""
        wanted = list(places)
        found: dict[Place, str] = {}
        for start in range(0, len(wanted), _AT_ONCE):
            batch = wanted[start : start + _AT_ONCE]
            entries = await asyncio.gather(*(self._store.get(place.path()) for place in batch))
            for place, entry in zip(batch, entries, strict=True):
                if entry is None:
                    raise _compacted(place.revision, (await self.bounds())[0])
                found[place] = entry.value.decode()
        return found

    async def events(self, revision: int) -> Events:
        """Return what one revision wrote; Compacted when that is no longer kept."""
        commit = await self.commit(revision)
        found: dict[Key, str | None] = {}
        if commit is not None:
            prefix = layout.attempt_prefix(revision, commit.attempt)
            entries, _ = await self._store.list(prefix, timeout=_LIST_SECONDS)
            for entry in entries:
                place = Place.parse(entry.key)
                found[place.key] = None if place.deleted else entry.value.decode()
        floor, head = await self.bounds()
        if revision <= floor or (commit is None and revision <= head):
            raise _compacted(revision, floor)
        if commit is None:
            raise _unborn(revision, head)
        return Events(commit, found)

    async def _index(self) -> _Index:
        # Commits first: whatever they name was written before, and is among the keys that are listed after.
        records, _ = await self._store.list(layout.COMMITS, timeout=_LIST_SECONDS)
        commits = {found.revision: found for found in (Commit.decode(entry.key, entry.value) for entry in records)}
        entries, _ = await self._store.list(layout.REVISIONS, keys_only=True, timeout=_LIST_SECONDS)
        places: dict[Key, list[Place]] = {}
        for entry in entries:
            place = Place.parse(entry.key)
            record = commits.get(place.revision)
            if record is not None and record.attempt == place.attempt:
                places.setdefault(place.key, []).append(place)  # in the order of revisions, as the keys are
        floor, _ = await self.bounds()
        return _Index(floor, max(commits, default=0), commits, places)


@dataclass(frozen=True, slots=True)
class _Index:
    floor: int
    head: int
    commits: Mapping[int, Commit]
    places: Mapping[Key, Sequence[Place]]

    def at(self, revision: int) -> dict[Key, Place]:
        if revision > self.head:
            raise _unborn(revision, self.head)
        if revision < self.floor:
            raise _compacted(revision, self.floor)
        found: dict[Key, Place] = {}
        for key, places in self.places.items():
            last = next((place for place in reversed(places) if place.revision <= revision), None)
            if last is not None and not last.deleted:
                found[key] = last
        return found


def _changes(places: Sequence[Place]) -> Iterator[tuple[int, Change]]:
    existed = False
    for place in places:
        if place.deleted:
            yield place.revision, Change.DELETED
        else:
            yield place.revision, Change.CHANGED if existed else Change.CREATED
        existed = not place.deleted


def _compacted(revision: int, floor: int) -> errors.Compacted:
    return errors.Compacted(
        f"revision {revision} is no longer kept: the history goes back to {floor} "
        "(see the manager's settings history_revisions and history_days)"
    )


def _unborn(revision: int, head: int) -> errors.NotFound:
    return errors.NotFound(f"there is no revision {revision} yet: the newest is {head}")
