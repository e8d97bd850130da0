"""All connected clients of one source, and how they are told of something new.

One decision to know: nothing is queued for a client. It takes the newest view when its turn comes, so a slow one skips
what is outdated, costs no memory and holds up nobody. Turns are taken in slices; between them the loop does other work.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from meshwright.core import errors
from meshwright.manager.xds.requests import Requests
from meshwright.manager.xds.responses import Responses
from meshwright.manager.xds.source import Client
from meshwright.manager.xds.subscription import Subscription

MAX_STREAMS = 20_000
MAX_STREAMS_OF_ONE_IDENTITY = 256  # replicas of one service share an identity
_SLICE_SECONDS = 0.005

C = TypeVar("C", bound=Client)


@dataclass(slots=True, eq=False)
class Connection(Generic[C]):
    """One client's stream; `push` sends it what it doesn't have yet, or remembers to, and never waits."""

    client: C
    subscription: Subscription
    node_message: Any = None
    """envoy.config.core.v3.Node, as the client introduced itself."""
    push: Callable[[], None] = field(default=lambda: None)

    @property
    def node_id(self) -> str:
        """What the client calls itself."""
        return self.client.node_id

    @property
    def spiffe_id(self) -> str:
        """Who it is by its certificate; empty without one."""
        return self.client.spiffe_id


class Streams(Generic[C]):
    """The connections, and what all of them share. Belongs to one event loop."""

    def __init__(self) -> None:
        self.requests, self.responses = Requests(), Responses()
        self._connections: dict[Connection[C], None] = {}
        self._identities: Counter[str] = Counter()
        self._turns: deque[Connection[C]] = deque()
        self._scheduled = False

    def connections(self) -> list[Connection[C]]:
        """Return the connected clients, those that came first first."""
        return list(self._connections)

    def wake(self, among: Callable[[Connection[C]], bool] | None = None) -> None:
        """Have every client, or those `among` is true of, look for something new soon."""
        if among is None:
            self._turns = deque(self._connections)
        else:
            waiting = set(self._turns)
            self._turns.extend(one for one in self._connections if one not in waiting and among(one))
        if self._turns and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._slice)

    @contextmanager
    def joined(self, connection: Connection[C]) -> Iterator[None]:
        """Count a client as connected for the length of the context; raise Exhausted when there are too many."""
        identity = connection.spiffe_id
        if len(self._connections) >= MAX_STREAMS:
            raise errors.Exhausted(f"{MAX_STREAMS} clients are served here already: start another replica")
        if self._identities[identity] >= MAX_STREAMS_OF_ONE_IDENTITY:
            raise errors.Exhausted(f"{identity} has {MAX_STREAMS_OF_ONE_IDENTITY} streams open already: close some")
        self._connections[connection] = None
        self._identities[identity] += 1
        try:
            yield
        finally:
            del self._connections[connection]
            self._identities[identity] -= 1
            if not self._identities[identity]:
                del self._identities[identity]

    def _slice(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + _SLICE_SECONDS
        turns = self._turns
        while turns:
            connection = turns.popleft()
            if connection in self._connections:
                connection.push()
            if loop.time() > end:
                break
            turns = self._turns
        self._scheduled = bool(self._turns)
        if self._scheduled:
            loop.call_soon(self._slice)
