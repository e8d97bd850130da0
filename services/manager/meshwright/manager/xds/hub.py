"""All connected proxies, and the newest snapshot for them.

One decision to know: nothing is queued for a proxy. It has a bell, and takes the newest snapshot when it gets to it; so
a slow proxy skips what is outdated, costs no memory, and holds up nobody.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from meshwright.core import errors
from meshwright.manager import metrics
from meshwright.manager.xds.convergence import Convergence
from meshwright.manager.xds.node import Node
from meshwright.manager.xds.snapshot import Snapshot
from meshwright.manager.xds.subscription import Subscription

MAX_STREAMS = 20_000
MAX_STREAMS_OF_ONE_IDENTITY = 256  # replicas of one service share an identity


@dataclass(slots=True, eq=False)
class Connection:
    """One proxy's stream."""

    node_id: str
    node: Node
    spiffe_id: str
    bell: asyncio.Event = field(default_factory=asyncio.Event)
    subscription: Subscription = field(default_factory=Subscription)


class Hub:
    """Where snapshots meet proxies."""

    def __init__(self) -> None:
        self.latest: Snapshot | None = None
        self.convergence = Convergence()
        self._connections: dict[Connection, None] = {}
        self._identities: Counter[str] = Counter()

    def publish(self, snapshot: Snapshot) -> None:
        """Make a snapshot the newest, and ring every proxy's bell."""
        self.latest = snapshot
        metrics.REVISION.set(snapshot.revision)
        self.convergence.published(snapshot.revision, len(self._connections))
        for connection in self._connections:
            connection.bell.set()

    @contextmanager
    def join(self, connection: Connection) -> Iterator[None]:
        """Count a proxy as connected for the length of the context."""
        identity = connection.spiffe_id
        if len(self._connections) >= MAX_STREAMS:
            raise errors.Exhausted(f"this manager serves {MAX_STREAMS} proxies already: start another replica")
        if self._identities[identity] >= MAX_STREAMS_OF_ONE_IDENTITY:
            raise errors.Exhausted(f"{identity} has {MAX_STREAMS_OF_ONE_IDENTITY} streams open already: close some")
        if self.latest is not None:  # what is on its way already was to reach others
            connection.subscription.begin(self.latest.revision)
        self._connections[connection] = None
        metrics.PROXIES.set(len(self._connections))
        self._identities[identity] += 1
        connection.bell.set()
        try:
            yield
        finally:
            del self._connections[connection]
            metrics.PROXIES.set(len(self._connections))
            self._identities[identity] -= 1
            if not self._identities[identity]:
                del self._identities[identity]

    def connections(self) -> list[Connection]:
        """Return the connected proxies, those that came first first."""
        return list(self._connections)
