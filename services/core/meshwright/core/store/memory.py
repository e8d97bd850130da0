"""The store of a service that runs alone: etcd's semantics in this process's memory, gone when it ends.

One decision to know: watches read from one bounded history instead of having queues, so a slow reader costs nothing and
is told to list again when it fell behind, as after a compaction of etcd.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import AsyncIterator, Sequence
from functools import partial

from meshwright.core import clock as clocks
from meshwright.core import errors
from meshwright.core.store import api
from meshwright.core.store.api import Change, Compare, Delete, Entry, Lease, Operation, Put, Resync

_HISTORY_CHANGES = 10_000
_HISTORY_BYTES = 64 * 1024 * 1024


class MemoryStore:
    """A `Store` in memory. `clock` times the leases."""

    def __init__(self, *, clock: clocks.Clock | None = None) -> None:
        self._clock = clock or clocks.SystemClock()
        self._entries: dict[str, Entry] = {}
        self._owners: dict[str, int] = {}  # key: lease
        self._leases: dict[int, set[str]] = {}
        self._lease_ids = itertools.count(1)
        self._revision = 1
        self._history: deque[Change] = deque()
        self._history_bytes = 0
        self._compacted = 1  # changes up to this revision are forgotten
        self._changed = asyncio.Event()

    async def get(self, key: str, *, timeout: float = api.DEADLINE_SECONDS) -> Entry | None:
        """Return the entry, or None."""
        return self._entries.get(key)

    async def list(
        self, prefix: str, *, keys_only: bool = False, timeout: float = api.DEADLINE_SECONDS
    ) -> tuple[list[Entry], int]:
        """Return the entries under `prefix` and the store's revision."""
        entries = [self._entries[key] for key in self._keys(prefix)]
        if keys_only:
            entries = [Entry(entry.key, b"", entry.revision) for entry in entries]
        return entries, self._revision

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        expect: int | None = None,
        lease: Lease | None = None,
        timeout: float = api.DEADLINE_SECONDS,
    ) -> int:
        """Write and return the new revision."""
        compares = [] if expect is None else [Compare(key, expect)]
        revision = await self.transaction(compares, [Put(key, value, lease)])
        if revision is None:
            raise api.conflict(key, expect or 0)
        return revision

    async def delete(self, key: str, *, expect: int | None = None, timeout: float = api.DEADLINE_SECONDS) -> bool:
        """Delete; return whether there was something."""
        there = key in self._entries
        compares = [] if expect is None else [Compare(key, expect)]
        if await self.transaction(compares, [Delete(key)]) is None:
            raise api.conflict(key, expect or 0)
        return there

    async def delete_prefix(self, prefix: str, *, timeout: float = api.DEADLINE_SECONDS) -> int:
        """Delete all under `prefix` in one revision."""
        if not prefix:
            raise errors.ConfigError("an empty prefix would delete everything", field="prefix")
        return self._remove(self._keys(prefix))

    async def transaction(
        self, compares: Sequence[Compare], operations: Sequence[Operation], *, timeout: float = api.DEADLINE_SECONDS
    ) -> int | None:
        """Apply all operations in one revision, or nothing."""
        api.check_transaction(compares, operations)
        for compare in compares:
            entry = self._entries.get(compare.key)
            if (entry.revision if entry else 0) != compare.revision:
                return None
        for item in operations:
            if isinstance(item, Put) and item.lease and item.lease.id not in self._leases:
                raise errors.NotFound(f"the lease of {item.key} has ended: take a new one")
        effective = [item for item in operations if isinstance(item, Put) or item.key in self._entries]
        if not effective:
            return self._revision
        revision = self._revision + 1
        changes = []
        for item in effective:
            self._disown(item.key)
            if isinstance(item, Put):
                self._entries[item.key] = Entry(item.key, bytes(item.value), revision)
                if item.lease:
                    self._leases[item.lease.id].add(item.key)
                    self._owners[item.key] = item.lease.id
                changes.append(Change(item.key, bytes(item.value), revision))
            else:
                del self._entries[item.key]
                changes.append(Change(item.key, None, revision))
        self._publish(revision, changes)
        return revision

    async def watch(
        self, prefix: str, since: int, *, report: api.Report | None = None
    ) -> AsyncIterator[Change | Resync]:
        """Yield every change after `since` under `prefix`."""
        if since > self._revision:
            yield Resync(f"revision {since} isn't of this store")
            return
        while True:
            changed = self._changed
            if since < self._compacted:
                yield Resync(f"changes up to revision {self._compacted} are forgotten")
                return
            newest = self._revision
            newer = itertools.takewhile(partial(_newer, since), reversed(self._history))
            for change in reversed([change for change in newer if change.key.startswith(prefix)]):
                yield change
            since = newest
            await changed.wait()

    @contextlib.asynccontextmanager
    async def lease(self, ttl_seconds: float) -> AsyncIterator[Lease]:
        """Hold a lease until the context ends."""
        lease = MemoryLease(next(self._lease_ids), ttl_seconds)
        self._leases[lease.id] = set()
        beating = asyncio.create_task(self._keep(lease), name=f"lease {lease.id}")
        try:
            yield lease
        finally:
            beating.cancel()
            self._end(lease)

    def compact(self) -> None:
        """Forget all changes up to now, as etcd does when it compacts."""
        self._history.clear()
        self._history_bytes, self._compacted = 0, self._revision

    async def _keep(self, lease: MemoryLease) -> None:
        alive_until = self._clock.monotonic() + lease.ttl_seconds
        while True:
            await self._clock.sleep(lease.ttl_seconds / 3)
            if lease.beating:
                alive_until = self._clock.monotonic() + lease.ttl_seconds
            elif self._clock.monotonic() >= alive_until:
                self._end(lease)
                lease.lost.set()
                return

    def _end(self, lease: Lease) -> None:
        self._remove(sorted(self._leases.pop(lease.id, ())))

    def _remove(self, keys: Sequence[str]) -> int:
        if keys:
            revision = self._revision + 1
            for key in keys:
                self._disown(key)
                del self._entries[key]
            self._publish(revision, [Change(key, None, revision) for key in keys])
        return len(keys)

    def _disown(self, key: str) -> None:
        owner = self._owners.pop(key, None)
        if owner in self._leases:
            self._leases[owner].discard(key)

    def _publish(self, revision: int, changes: Sequence[Change]) -> None:
        self._revision = revision
        self._history.extend(changes)
        self._history_bytes += sum(map(_weight, changes))
        while len(self._history) > _HISTORY_CHANGES or self._history_bytes > _HISTORY_BYTES:
            oldest = self._history.popleft()
            self._history_bytes -= _weight(oldest)
            self._compacted = oldest.revision
        self._changed.set()
        self._changed = asyncio.Event()

    def _keys(self, prefix: str) -> Sequence[str]:
        return sorted(key for key in self._entries if key.startswith(prefix))


class MemoryLease(Lease):
    """A lease whose holder can be made to fall silent, as one that was killed."""

    beating = True

    def fall_silent(self) -> None:
        """Stop the beats; the lease is lost after its time."""
        self.beating = False


def _newer(revision: int, change: Change) -> bool:
    return change.revision > revision


def _weight(change: Change) -> int:
    return len(change.key) + len(change.value or b"")
