"""Folds what lies in the store into the objects of the newest committed revision. Pure: no store, no clock.

One decision to know: entries of attempts that aren't committed are kept aside until their commit is seen; the store
delivers in order, so all of them are there by then, and `behind` says when that isn't so.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshwright.core import errors
from meshwright.core.config import layout, objects
from meshwright.core.config.layout import Commit, Place
from meshwright.core.config.objects import Key, Object
from meshwright.core.store import Change, Entry


class Journal:
    """The objects of `revision`; `broken` holds what couldn't be read, by key."""

    def __init__(self) -> None:
        self.revision = 0
        self.objects: dict[Key, Object] = {}
        self.broken: dict[Key, str] = {}
        self._waiting: dict[tuple[int, str], dict[str, bytes]] = {}

    def load(self, entries: Iterable[Entry]) -> None:
        """Begin anew from everything under the prefix, read at one revision of the store."""
        commits: dict[int, Commit] = {}
        attempts: dict[tuple[int, str], dict[str, bytes]] = {}
        self.revision = 0
        for entry in entries:
            if entry.key == layout.HEAD:
                self.revision = layout.head_revision(entry.value)
            elif entry.key.startswith(layout.COMMITS):
                commit = Commit.decode(entry.key, entry.value)
                commits[commit.revision] = commit
            elif entry.key.startswith(layout.REVISIONS):
                place = Place.parse(entry.key)
                attempts.setdefault((place.revision, place.attempt), {})[entry.key] = entry.value
        newest: dict[Key, tuple[Place, bytes]] = {}
        for revision in sorted(commits):
            for path, value in attempts.pop((revision, commits[revision].attempt), {}).items():
                place = Place.parse(path)
                newest[place.key] = place, value
        self._waiting = {key: paths for key, paths in attempts.items() if key[0] > self.revision}
        before, self.objects, self.broken = self.objects, {}, {}
        for key, (place, value) in newest.items():
            if not place.deleted:
                self._put(key, place.revision, value, before.get(key))

    def take(self, change: Change) -> bool:
        """Take one change; return whether a new revision is complete."""
        if change.key.startswith(layout.REVISIONS):
            place = Place.parse(change.key)
            self._set_aside((place.revision, place.attempt), change)
            return False
        if not change.key.startswith(layout.COMMITS) or change.value is None:
            return False
        commit = Commit.decode(change.key, change.value)
        if commit.revision <= self.revision:
            return False
        entries = self._waiting.pop((commit.revision, commit.attempt), {})
        if commit.revision != self.revision + 1 or len(entries) != commit.entries:
            raise errors.Conflict(f"revision {commit.revision} came with {len(entries)} of {commit.entries} entries")
        for path, value in entries.items():
            place = Place.parse(path)
            if place.deleted:
                self.objects.pop(place.key, None)
                self.broken.pop(place.key, None)
            else:
                self._put(place.key, place.revision, value, None)
        self.revision = commit.revision
        return True

    def _set_aside(self, attempt: tuple[int, str], change: Change) -> None:
        if change.value is not None:
            if attempt[0] > self.revision:
                self._waiting.setdefault(attempt, {})[change.key] = change.value
            return
        waiting = self._waiting.get(attempt)  # removed: a lost attempt, or old history
        if waiting is not None:
            waiting.pop(change.key, None)
            if not waiting:
                del self._waiting[attempt]

    def _put(self, key: Key, revision: int, value: bytes, known: Object | None) -> None:
        try:
            text = value.decode()
            found = (
                known if known is not None and known.json == text else objects.from_json(text, f"revision {revision}")
            )
        except (errors.ConfigError, UnicodeDecodeError) as error:
            self.broken[key] = str(error)
            return
        self.broken.pop(key, None)
        self.objects[key] = found
