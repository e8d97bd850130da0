"""The manager's pen: commits any number of objects as one revision, or nothing.

One decision to know: after a call whose outcome is unknown the head is touched, which makes the lost transaction fail
should it still arrive; so `commit` only says "unknown" when the store can't be reached at all.
"""

from __future__ import annotations

import asyncio
import datetime
import itertools
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import structlog

from meshwright.core import clock as clocks
from meshwright.core import errors
from meshwright.core.config import layout
from meshwright.core.config.layout import Commit, Place
from meshwright.core.config.objects import Key
from meshwright.core.store import Compare, Delete, Entry, Put, Store

_log = structlog.get_logger(__name__)

KEPT_REVISIONS = 100
_TRIM_EVERY = 100  # commits: listing all keys once for so many of them costs each little
_TEND_SECONDS = 3600.0
_BATCH_OPERATIONS = 100
_BATCH_BYTES = 1024 * 1024
_CALL_SECONDS = 5.0


class Ledger:
    """Writes revisions. Several managers may each have one: whoever moves the head first wins.

    `kept` is of how many revisions `trim` leaves the history, `kept_seconds` for how long after they were superseded
    (None: however old). What is in force stays in any case.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: clocks.Clock | None = None,
        kept: int = KEPT_REVISIONS,
        kept_seconds: float | None = None,
    ) -> None:
        self._store, self._clock, self._kept, self._kept_seconds = (
            store,
            clock or clocks.SystemClock(),
            kept,
            kept_seconds,
        )

    async def head(self) -> int:
        """Return the newest revision; 0 when nothing was ever committed."""
        entry = await self._store.get(layout.HEAD)
        return layout.head_revision(entry.value if entry else None)

    async def commit(
        self, put: Mapping[Key, str], delete: Collection[Key], expected: int, *, author: str = "", message: str = ""
    ) -> int:
        """Commit JSON texts and deletions on top of revision `expected`; return the new revision.

        `author` and `message` are kept beside it, for who reads the history.

        Conflict: the head isn't `expected`; nothing is changed, read again and retry. Unavailable or DeadlineExceeded
        while the store is away; the message says whether the change may have been committed.
        """
        head = await self._store.get(layout.HEAD)
        self._check(head, expected)
        if not put and not delete:
            return expected
        now = self._clock.now().isoformat(timespec="seconds")
        attempt = Commit(expected + 1, secrets.token_hex(8), len(put) + len(delete), now, author, message)
        try:
            for batch in _batches(_entries(attempt, put, delete)):
                await self._store.transaction([], batch, timeout=_CALL_SECONDS)
            moved = await self._move(attempt, head)
        except _UnknownError:
            raise  # what was written stays: it may count
        except errors.MeshwrightError:
            await self._discard(layout.attempt_prefix(attempt.revision, attempt.attempt))
            raise
        if not moved:
            await self._discard(layout.attempt_prefix(attempt.revision, attempt.attempt))
            self._check(await self._store.get(layout.HEAD), expected)
            raise errors.Conflict("the configuration changed at the same moment: retry")
        await self._tidy(attempt)
        return attempt.revision

    async def trim(self) -> int:
        """Remove what the kept revisions don't need and what lost attempts left; return how many keys went."""
        paths, _ = await self._store.list(layout.PREFIX, keys_only=True, timeout=_CALL_SECONDS * 4)
        found, _ = await self._store.list(layout.COMMITS, timeout=_CALL_SECONDS)
        records = [Commit.decode(entry.key, entry.value) for entry in found]
        floor = self._floor(records)
        superfluous = _superfluous(paths, records, floor)
        before = await self._store.get(layout.FLOOR)
        if floor > layout.head_revision(before.value if before else None):
            # Readers of the history look at it last: what they missed is told, never taken for what was deleted.
            await self._store.put(layout.FLOOR, layout.head_value(floor), timeout=_CALL_SECONDS)
        for batch in _chunks(superfluous, _BATCH_OPERATIONS):
            await self._store.transaction([], [Delete(path) for path in batch], timeout=_CALL_SECONDS)
        return len(superfluous)

    async def tend(self) -> None:
        """Trim every hour, so that history grows old also while nothing is committed; until cancelled."""
        while True:
            await self._clock.sleep(_TEND_SECONDS)
            try:
                await self.trim()
            except errors.MeshwrightError as error:
                _log.warning("history_not_trimmed", reason=str(error))

    def _floor(self, records: Sequence[Commit]) -> int:
        """Return the oldest revision whose state must still be readable."""
        newest = max((record.revision for record in records), default=0)
        floor = max(newest - self._kept, 0)
        if self._kept_seconds is not None:
            since = self._clock.now() - datetime.timedelta(seconds=self._kept_seconds)
            stale = [found.revision for found in records if datetime.datetime.fromisoformat(found.time) < since]
            floor = max(floor, *stale, 0)
        return floor

    async def _move(self, attempt: Commit, head: Entry | None) -> bool:
        compare = Compare(layout.HEAD, head.revision if head else 0)
        move = [
            Put(layout.HEAD, layout.head_value(attempt.revision)),
            Put(layout.commit_path(attempt.revision), attempt.encode()),
        ]
        try:
            return await self._store.transaction([compare], move, timeout=_CALL_SECONDS) is not None
        except (errors.Unavailable, errors.DeadlineExceeded) as error:
            return await self._find_out(attempt, compare, error)

    async def _find_out(self, attempt: Commit, compare: Compare, cause: errors.MeshwrightError) -> bool:
        """Return whether a move without an answer was applied; make sure that it isn't later."""
        touch = [Put(layout.HEAD, layout.head_value(attempt.revision - 1))]
        try:
            untouched = await self._store.transaction([compare], touch, timeout=_CALL_SECONDS) is not None
            record = await self._store.get(layout.commit_path(attempt.revision), timeout=_CALL_SECONDS)
        except (errors.Unavailable, errors.DeadlineExceeded) as error:
            raise _UnknownError(
                f"the store is away and didn't say whether revision {attempt.revision} was committed: "
                f"look at the newest revision before you retry ({error})"
            ) from error
        if untouched:
            raise errors.Unavailable(f"the store was away, nothing was committed: {cause}") from cause
        return record is not None and Commit.decode(record.key, record.value).attempt == attempt.attempt

    @staticmethod
    def _check(head: Entry | None, expected: int) -> None:
        newest = layout.head_revision(head.value if head else None)
        if newest != expected:
            raise errors.Conflict(
                f"the configuration is at revision {newest}, the change was made for {expected}: read again and retry"
            )

    async def _discard(self, prefix: str) -> None:
        try:
            await asyncio.shield(self._store.delete_prefix(prefix, timeout=_CALL_SECONDS))
        except errors.MeshwrightError as error:  # the winner at this revision, or `trim`, removes it
            _log.info("attempt_left_behind", prefix=prefix, reason=str(error))

    async def _tidy(self, attempt: Commit) -> None:
        """Housekeeping after a commit; what fails here is done after a later one."""
        try:
            paths, _ = await self._store.list(layout.revision_prefix(attempt.revision), keys_only=True)
            tokens = {Place.parse(entry.key).attempt for entry in paths} - {attempt.attempt}
            for token in tokens:
                await self._store.delete_prefix(layout.attempt_prefix(attempt.revision, token))
            if attempt.revision % min(self._kept, _TRIM_EVERY) == 0:
                removed = await self.trim()
                _log.info("history_trimmed", revision=attempt.revision, removed=removed)
        except errors.MeshwrightError as error:
            _log.warning("history_not_trimmed", revision=attempt.revision, reason=str(error))


class _UnknownError(errors.Unavailable):
    """Nobody can tell at the moment whether the commit happened."""


def _entries(attempt: Commit, put: Mapping[Key, str], delete: Iterable[Key]) -> Iterator[Put]:
    for key, text in put.items():
        yield Put(Place(attempt.revision, attempt.attempt, False, key).path(), text.encode())
    for key in delete:
        if key in put:
            raise errors.ConfigError(f"{key} is put and deleted in one commit", field="delete")
        yield Put(Place(attempt.revision, attempt.attempt, True, key).path(), b"")


def _batches(entries: Iterable[Put]) -> Iterator[list[Put]]:
    batch: list[Put] = []
    size = 0
    for entry in entries:
        weight = len(entry.key) + len(entry.value)
        if batch and (len(batch) == _BATCH_OPERATIONS or size + weight > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += weight
    yield batch


def _chunks(paths: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(paths), size):
        yield paths[start : start + size]


def _superfluous(paths: Iterable[Entry], records: Sequence[Commit], floor: int) -> list[str]:
    """Return the keys to remove, in the order in which a reader may miss them; the state at `floor` stays readable."""
    newest = max((record.revision for record in records), default=0)
    committed = {record.revision: record.attempt for record in records}
    histories: dict[Key, list[Place]] = {}
    lost: list[str] = []
    for entry in paths:
        if not entry.key.startswith(layout.REVISIONS):
            continue
        place = Place.parse(entry.key)
        if committed.get(place.revision) == place.attempt:
            histories.setdefault(place.key, []).append(place)
        elif place.revision <= newest:
            lost.append(entry.key)
    old: list[Place] = []
    needed: set[int] = set()
    for places in histories.values():
        places.sort(key=lambda place: place.revision)
        settled = [place for place in places if place.revision <= floor]
        if settled and not settled[-1].deleted:
            settled.pop()  # the object as it was at the floor
        old += settled
        needed.update(place.revision for place in places[len(settled) :])
    old.sort(key=lambda place: place.revision)  # a deletion goes after what it deletes
    empty = [rev for rev in sorted(committed) if rev <= floor and rev not in needed]
    return list(itertools.chain(lost, (place.path() for place in old), map(layout.commit_path, empty)))
