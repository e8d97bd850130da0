"""Every registration in memory, as the store has it, and the feeds of the agents that follow their node's.

One decision to know: a feed is a set of ids that changed, not a queue of changes. An agent that reads slowly finds each
registration once with its newest content, and what a feed holds is bounded by the registrations of its node.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass

from meshwright.citadel.registrations.model import Registration


@dataclass(frozen=True, slots=True)
class Update:
    """What changed on a node. With `reset` it is everything there is."""

    reset: bool
    changed: tuple[Registration, ...]
    removed: tuple[str, ...] = ()


class Book:
    """Registrations by id and by node. Belongs to one event loop; whoever follows the store calls the writers."""

    def __init__(self) -> None:
        self._all: dict[str, tuple[Registration, int]] = {}
        self._by_node: defaultdict[str, dict[str, Registration]] = defaultdict(dict)
        self._by_identity: defaultdict[str, set[str]] = defaultdict(set)
        self._feeds: defaultdict[str, set[_Feed]] = defaultdict(set)
        self.for_pods: dict[str, Registration] = {}  # these are of no node: what is made of them is
        self.on_for_pods: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._all)

    def get(self, registration_id: str) -> Registration | None:
        """Return a registration by its id."""
        known = self._all.get(registration_id)
        return known[0] if known else None

    def of_identity(self, spiffe_id: str) -> Registration | None:
        """Return the registration of a SPIFFE ID, the first by id when there are several."""
        ids = self._by_identity.get(spiffe_id)
        return self._all[min(ids)][0] if ids else None

    def count(self, node: str) -> int:
        """Return how many registrations a node has."""
        return len(self._by_node.get(node, ()))

    def page(self, after: str, size: int) -> list[Registration]:
        """Return up to `size` registrations in the order of their ids, beginning after the id `after`."""
        return [self._all[key][0] for key in sorted(key for key in self._all if key > after)[:size]]

    def replace(self, registrations: Iterable[tuple[Registration, int]], owned: Callable[[str], bool]) -> None:
        """Take a whole listing: of the ids that `owned` names as its own, what isn't in it is gone.

        Its revisions hold even when they are older, as those of a store that was restored from a backup.
        """
        listed = {registration.id: (registration, revision) for registration, revision in registrations}
        for gone in [key for key in self._all if owned(key) and key not in listed]:
            self.remove(gone)
        for registration, revision in listed.values():
            self._set(registration, revision)

    def put(self, registration: Registration, revision: int) -> None:
        """Take one registration as of a revision; an older revision than the known one is ignored."""
        known = self._all.get(registration.id)
        if known is None or known[1] < revision:
            self._set(registration, revision)

    def _set(self, registration: Registration, revision: int) -> None:
        known = self._all.get(registration.id)
        if known and (known[0].node, known[0].spiffe_id) != (registration.node, registration.spiffe_id):
            self.remove(registration.id)
        was_for_pods = self.for_pods.pop(registration.id, None)
        self._all[registration.id] = (registration, revision)
        self._by_identity[registration.spiffe_id].add(registration.id)
        if registration.is_for_pods:
            self._forget_node(registration.node, registration.id)
            self.for_pods[registration.id] = registration
        else:
            self._by_node[registration.node][registration.id] = registration
        if known is None or known[0] != registration:
            self._tell(registration.node, registration.id)
            if registration.is_for_pods or was_for_pods:
                self.on_for_pods()

    def remove(self, registration_id: str) -> None:
        """Forget one registration."""
        known = self._all.pop(registration_id, None)
        if known is None:
            return
        node, spiffe_id = known[0].node, known[0].spiffe_id
        self._forget_node(node, registration_id)
        self._by_identity[spiffe_id].discard(registration_id)
        if not self._by_identity[spiffe_id]:
            del self._by_identity[spiffe_id]
        self._tell(node, registration_id)
        if self.for_pods.pop(registration_id, None) is not None:
            self.on_for_pods()

    def _forget_node(self, node: str, registration_id: str) -> None:
        known = self._by_node.get(node, {})
        if known.pop(registration_id, None) is not None and not known:
            del self._by_node[node]

    async def follow(self, node: str) -> AsyncGenerator[Update, None]:
        """Yield everything of a node, then each change and each reminder, merged while the reader is busy.

        Ends with the reader.
        """
        feed = _Feed()
        self._feeds[node].add(feed)
        try:
            yield Update(True, tuple(self._by_node.get(node, {}).values()))
            while True:
                ids = await feed.take()
                current = self._by_node.get(node, {})
                yield Update(
                    False,
                    tuple(current[key] for key in ids if key in current),
                    tuple(key for key in ids if key not in current),
                )
        finally:
            self._feeds[node].discard(feed)
            if not self._feeds[node]:
                del self._feeds[node]

    def remind(self) -> None:
        """Let every follower have an update, an empty one if nothing of its node changed."""
        for feeds in self._feeds.values():
            for feed in feeds:
                feed.wake()

    def _tell(self, node: str, registration_id: str) -> None:
        for feed in self._feeds.get(node, ()):
            feed.add(registration_id)


class _Feed:
    def __init__(self) -> None:
        self._ids: dict[str, None] = {}  # a set that keeps its order
        self._filled = asyncio.Event()

    def add(self, registration_id: str) -> None:
        self._ids[registration_id] = None
        self._filled.set()

    def wake(self) -> None:
        self._filled.set()

    async def take(self) -> list[str]:
        await self._filled.wait()
        self._filled.clear()
        ids, self._ids = list(self._ids), {}
        return ids
