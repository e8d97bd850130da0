"""What a store is: keys with values and revisions, compare-and-set, watches that resume, leases.

One decision to know: the semantics are etcd's (one revision for the whole store, `expect=0` means "must not exist"), so
that the in-memory store can stand in for it; one contract test-suite runs on both.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from meshwright.core import errors

DEADLINE_SECONDS = 5.0  # of a call whose caller gave none
MAX_OPERATIONS = 128  # of one transaction; etcd's own default
MAX_REQUEST_BYTES = 1024 * 1024 + 384 * 1024  # etcd takes 1.5 MiB with everything around the values
PAGE = 256  # entries of one page of a list


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's value and the revision that wrote it."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Change:
    """What a watch saw: a new value, or None where the key was deleted."""

    key: str
    value: bytes | None
    revision: int


@dataclass(frozen=True, slots=True)
class Resync:
    """The last item of a watch that can't go on without a gap: list again, then watch from that revision."""

    reason: str


class Lease:
    """Keys put with it disappear when it ends. `lost` is set when it ended without its holder wanting it."""

    def __init__(self, lease_id: int, ttl_seconds: float) -> None:
        self.id, self.ttl_seconds = lease_id, ttl_seconds
        self.lost = asyncio.Event()


@dataclass(frozen=True, slots=True)
class Compare:
    """A condition: `key` was last written by `revision`; 0 means that it doesn't exist."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class Put:
    """An operation of a transaction."""

    key: str
    value: bytes
    lease: Lease | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """An operation of a transaction; a key that doesn't exist is no fault."""

    key: str


Operation = Put | Delete
Report = Callable[[str], None]
"""Told the reason when a watch loses its server, and an empty text when it follows again."""


class Store(Protocol):
    """All methods raise Unavailable or DeadlineExceeded when there is no answer in `timeout` seconds.

    A write that raises one of these may or may not have been applied: read before deciding what to do.
    """

    async def get(self, key: str, *, timeout: float = DEADLINE_SECONDS) -> Entry | None:
        """Return the entry, or None."""
        ...

    async def list(
        self, prefix: str, *, keys_only: bool = False, timeout: float = DEADLINE_SECONDS
    ) -> tuple[list[Entry], int]:
        """Return all entries whose keys begin with `prefix`, in key order, as they were at the returned revision.

        With `keys_only` the values are empty and aren't sent.
        """
        ...

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        expect: int | None = None,
        lease: Lease | None = None,
        timeout: float = DEADLINE_SECONDS,
    ) -> int:
        """Write and return the new revision; Conflict when `expect` isn't the key's revision; NotFound: lease ended."""
        ...

    async def delete(self, key: str, *, expect: int | None = None, timeout: float = DEADLINE_SECONDS) -> bool:
        """Delete; return whether there was something; Conflict when `expect` isn't the key's revision."""
        ...

    async def delete_prefix(self, prefix: str, *, timeout: float = DEADLINE_SECONDS) -> int:
        """Delete all keys that begin with `prefix` (not empty) and return their number."""
        ...

    async def transaction(
        self, compares: Sequence[Compare], operations: Sequence[Operation], *, timeout: float = DEADLINE_SECONDS
    ) -> int | None:
        """Apply all operations in one revision and return it, or None when a comparison failed and nothing was done.

        At most `MAX_OPERATIONS` of each, `MAX_REQUEST_BYTES` together and each key once; else Exhausted or ConfigError.
        """
        ...

    def watch(self, prefix: str, since: int, *, report: Report | None = None) -> AsyncIterator[Change | Resync]:
        """Yield every change after revision `since`, in order, each once.

        Goes on by itself when the server was away; ends with `Resync` when changes were lost (compaction, or a store
        that isn't the one of before).
        """
        ...

    def lease(self, ttl_seconds: float) -> AbstractAsyncContextManager[Lease]:
        """Hold a lease, kept alive until the context ends; then its keys are deleted at once."""
        ...


def check_transaction(compares: Sequence[Compare], operations: Sequence[Operation]) -> None:
    """Refuse what etcd would refuse, with a message that says the limit."""
    for what, count in (("comparisons", len(compares)), ("operations", len(operations))):
        if count > MAX_OPERATIONS:
            raise errors.Exhausted(
                f"a transaction has {count} {what}; etcd takes {MAX_OPERATIONS}: write in parts under a new prefix and "
                "make them visible by one compare-and-set"
            )
    size = sum(len(item.key) + (len(item.value) if isinstance(item, Put) else 0) for item in operations)
    if size > MAX_REQUEST_BYTES:
        raise errors.Exhausted(f"a transaction has {size} bytes; at most {MAX_REQUEST_BYTES} are taken: write in parts")
    seen: set[str] = set()
    for item in operations:
        if item.key in seen:
            raise errors.ConfigError(f"{item.key} occurs twice in one transaction", field="operations")
        seen.add(item.key)


def conflict(key: str, expect: int) -> errors.Conflict:
    """Return the error of a lost compare-and-set."""
    wanted = f"isn't at revision {expect} any more" if expect else "exists already"
    return errors.Conflict(f"{key} {wanted}: read it again and retry")
