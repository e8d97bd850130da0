"""Entries in the store: one key for each object, its value the message with who owns it.

One decision to know: only what the store has taken is shown to anybody, and every replica follows the store, so that an
endpoint registered with one replica is found with all.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, unquote

import structlog
from google.protobuf.message import DecodeError

from meshwright.core import errors
from meshwright.core.health import Health
from meshwright.core.store import Change, Entry, Store, follow
from meshwright.nsm_registry.registry.directory import Directory, Registered

PREFIX = "/meshwright/nsm/"

log = structlog.get_logger(__name__)


class Records:
    """The stored form of a directory."""

    def __init__(self, store: Store, directory: Directory) -> None:
        self._store, self.directory = store, directory
        self.prefix = f"{PREFIX}{directory.kind.name}/"
        self.loaded = asyncio.Event()  # set once the directory holds what the store has

    async def put(self, message: Any, owner: str, *, gone: bool = False) -> Registered:
        """Write an object over the entry that the directory has; raise Conflict if another replica was first."""
        known = self.directory.get(message.name)
        revision = await self._store.put(
            self._key(message.name), _dump(message, owner, gone), expect=known.revision if known else 0
        )
        entry = Registered(message, owner, revision, gone)
        self.directory.put(message.name, entry)
        return entry

    async def remove(self, name: str) -> None:
        """Remove an object, if the directory's entry is still the newest; raise Conflict if not."""
        known = self.directory.get(name)
        if known is None:
            return
        await self._store.delete(self._key(name), expect=known.revision)
        self.directory.remove(name, known.revision)

    async def refetch(self, name: str) -> None:
        """Bring one entry up to date, after a Conflict."""
        found = await self._store.get(self._key(name))
        if found is not None:
            self._take(found.key, found.value, found.revision)
        elif (known := self.directory.get(name)) is not None:
            self.directory.remove(name, known.revision)

    async def follow(self, health: Health) -> None:
        """Keep the directory like the store until cancelled."""
        await follow(self._store, self.prefix, self.take_snapshot, self.take_change, health=health)

    def take_snapshot(self, entries: Sequence[Entry], revision: int) -> None:
        """Take in a whole listing; what it lacks was removed while nobody watched."""
        for entry in entries:
            self._take(entry.key, entry.value, entry.revision)
        listed = {entry.key for entry in entries}
        for name, kept in self.directory:
            if self._key(name) not in listed and kept.revision <= revision:
                self.directory.remove(name, revision)
        self.loaded.set()

    def take_change(self, change: Change) -> None:
        """Take in what the store says of a key."""
        self._take(change.key, change.value, change.revision)

    def _take(self, key: str, value: bytes | None, revision: int) -> None:
        name = unquote(key.removeprefix(self.prefix))
        if value is None:
            self.directory.remove(name, revision)
            return
        try:
            self.directory.put(name, _load(value, self.directory.kind.message, revision))
        except (ValueError, KeyError, TypeError, DecodeError) as error:
            log.warning("registry.record.unreadable", key=key, reason=str(error))

    def _key(self, name: str) -> str:
        return self.prefix + quote(name, safe="")


def check_free_of(known: Registered | None, owner: str, name: str) -> None:
    """Raise Forbidden when a name belongs to somebody else: the first who registers it owns it."""
    if known is not None and known.owner != owner:
        raise errors.Forbidden(f"{name} belongs to {known.owner}, not to {owner or 'you'}")


def _dump(message: Any, owner: str, gone: bool) -> bytes:
    content = {"owner": owner, "gone": gone, "message": base64.b64encode(message.SerializeToString()).decode()}
    return json.dumps(content, separators=(",", ":")).encode()


def _load(value: bytes, kind: type[Any], revision: int) -> Registered:
    content = json.loads(value)
    message = kind()
    message.ParseFromString(base64.b64decode(content["message"], validate=True))
    return Registered(message, str(content["owner"]), revision, bool(content["gone"]))
