"""Registrations as a service: written to the store, read from memory, which follows the store.

One decision to know: reads never wait for the store. With etcd away, agents keep their registrations and certificates
are signed; only making and removing registrations fails, with UNAVAILABLE.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable

import structlog

from meshwright.citadel.errors import RegistrationRefused
from meshwright.citadel.registrations import model
from meshwright.citadel.registrations.book import Book, Update
from meshwright.citadel.registrations.model import Registration
from meshwright.core import errors, store
from meshwright.core.health import Health
from meshwright.core.store import Change, Entry, Store

CONFIGURED = "config."  # begins the ids of registrations that come from a folder
PREFIX = "/meshwright/citadel/registrations/"
PART = "registrations"  # in health
MAX_REGISTRATIONS = 100_000
MAX_A_NODE = 10_000

_log = structlog.get_logger(__name__)


class Registry:
    """The registrations of one mesh; `run` keeps them as the store has them."""

    def __init__(self, facts: Store) -> None:
        self._store = facts
        self._book = Book()
        self._missing = {PART}  # sources that haven't said yet what they have
        self._whole = asyncio.Event()
        self._counted = 0
        self.check_fresh: Callable[[Registration], None] = lambda registration: None

    async def register(self, registration: Registration) -> None:
        """Make or replace a registration, checked before. Raises Exhausted at the limits."""
        for begin, whose in ((CONFIGURED, "the folder"), (model.POD, "pods")):
            if registration.id.startswith(begin):
                raise RegistrationRefused(
                    f"{registration.id!r}", field="id", remedy=f"ids that begin with {begin} are those of {whose}"
                )
        if self._book.get(registration.id) is None:
            if len(self._book) >= MAX_REGISTRATIONS:
                raise errors.Exhausted(f"{MAX_REGISTRATIONS} registrations exist (remove some)")
            if self._book.count(registration.node) >= MAX_A_NODE:
                raise errors.Exhausted(f"node {registration.node!r} has {MAX_A_NODE} registrations (remove some)")
        revision = await self._store.put(PREFIX + registration.id, model.encode(registration))
        self._book.put(registration, revision)  # the caller may rely on it; the store's own news comes later

    async def unregister(self, registration_id: str) -> bool:
        """Remove a registration; return whether there was one. Those of the folder are removed there."""
        return await self._store.delete(PREFIX + registration_id)

    def get(self, registration_id: str) -> Registration | None:
        """Return a registration by its id."""
        return self._book.get(registration_id)

    def of_identity(self, spiffe_id: str) -> Registration | None:
        """Return a registration of this SPIFFE ID: the first by id when there are several."""
        return self._book.of_identity(spiffe_id)

    def page(self, after: str, size: int) -> list[Registration]:
        """Return up to `size` registrations in the order of their ids, beginning after the id `after`."""
        return self._book.page(after, size)

    def follow(self, node: str) -> AsyncGenerator[Update, None]:
        """Yield everything of a node, then each change."""
        return self._book.follow(node)

    def remind(self) -> None:
        """Let every follower look again at what it is sent beside registrations."""
        self._book.remind()

    def expect(self, source: str) -> None:
        """Let agents wait until this source too has said what it has: a set with a gap would cost them their keys."""
        self._missing.add(source)
        self._whole.clear()

    def arrived(self, source: str) -> None:
        """Take note that a source has said what it has."""
        self._missing.discard(source)
        if not self._missing:
            self._whole.set()

    async def whole(self) -> None:
        """Return when all sources have said what they have."""
        await self._whole.wait()

    def for_pods(self) -> list[Registration]:
        """Return the registrations that say which pods they are for."""
        return list(self._book.for_pods.values())

    def follow_for_pods(self, on_change: Callable[[], None], check_fresh: Callable[[Registration], None]) -> None:
        """Call `on_change` after each change of those, and `check_fresh` before what is made of a pod is signed for."""
        self._book.on_for_pods, self.check_fresh = on_change, check_fresh

    def put_of_pod(self, registration: Registration) -> None:
        """Take what was made of a pod."""
        self._counted += 1
        self._book.put(registration, self._counted)

    def remove_of_pod(self, registration_id: str) -> None:
        """Forget what was made of a pod."""
        self._book.remove(registration_id)

    def configure(self, registrations: Iterable[Registration]) -> None:
        """Take the folder's registrations: all of them, in place of those before."""
        self._book.replace(((known, 0) for known in registrations), lambda key: key.startswith(CONFIGURED))

    async def run(self, health: Health) -> None:
        """Follow the store until cancelled; `health` hears of its outages."""
        await store.follow(self._store, PREFIX, self._take_snapshot, self._take_change, health=health, part=PART)

    def _take_snapshot(self, entries: Iterable[Entry], _revision: int) -> None:
        decoded = ((self._decode(entry.key, entry.value), entry.revision) for entry in entries)
        stored = ((known, revision) for known, revision in decoded if known is not None)
        self._book.replace(stored, lambda key: not key.startswith((CONFIGURED, model.POD)))
        self.arrived(PART)

    def _take_change(self, change: Change) -> None:
        registration = self._decode(change.key, change.value) if change.value is not None else None
        if registration is not None:
            self._book.put(registration, change.revision)
        else:
            self._book.remove(change.key.removeprefix(PREFIX))

    def _decode(self, key: str, value: bytes) -> Registration | None:
        """Return a stored registration; a damaged one is logged and left out, and must not hide the others."""
        try:
            return model.decode(value)
        except RegistrationRefused as error:
            _log.error("registration_damaged", key=key, error=str(error))
            return None
