"""The connections of one hop: their state, one lock for each, and who they belong to.

One decision to know: a connection is found by this hop's own id, and also by its owner with the caller's id. So a
client that lost the answer, or restarted, takes up its connection instead of leaving it to expire beside a second one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from meshwright.core import errors
from meshwright.nsm.descriptors import Held
from meshwright.nsm.wire import Connection


@dataclass(slots=True)
class ConnectionState:
    """What a hop knows about one connection. Messages carry this hop's own index and id."""

    id: str
    owner: str  # SPIFFE ID of the caller; empty without mutual TLS
    caller_id: str  # the id that the caller gave the connection
    accepted: Connection | None = None  # as last answered; None until it was established
    downstream: Connection | None = None  # as the next hop last answered, or as it was sent and no answer came
    next_hop: str = ""  # name of the hop that has `downstream`
    expires: datetime | None = None  # of the caller's last token
    held: Held = field(default_factory=Held)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    closed: bool = False


class Connections:
    """All connections of a hop; `limit` of them at most."""

    def __init__(self, *, limit: int = 10_000) -> None:
        self._limit = limit
        self._by_id: dict[str, ConnectionState] = {}
        self._by_caller: dict[tuple[str, str], ConnectionState] = {}

    def get(self, identifier: str) -> ConnectionState | None:
        """Return the connection with this hop's id."""
        return self._by_id.get(identifier)

    def known(self, owner: str, caller_id: str) -> str | None:
        """Return this hop's id of the connection that `owner` calls `caller_id`."""
        state = self._by_caller.get((owner, caller_id))
        return state.id if state else None

    def open(self, identifier: str, owner: str, caller_id: str) -> ConnectionState:
        """Return the connection, made now if there was none; raise Exhausted at the limit."""
        state = self._by_id.get(identifier)
        if state is None:
            if len(self._by_id) >= self._limit:
                raise errors.Exhausted(f"this hop holds {self._limit} connections already (--max-connections)")
            state = ConnectionState(identifier, owner, caller_id)
            self.restore(state)
        return state

    def restore(self, state: ConnectionState) -> None:
        """Add a connection as it is."""
        self._by_id[state.id] = state
        self._by_caller[(state.owner, state.caller_id)] = state

    def forget(self, state: ConnectionState) -> None:
        """Remove a connection that is closed."""
        state.closed = True
        state.held.close()
        if self._by_id.get(state.id) is state:
            del self._by_id[state.id]
        if self._by_caller.get((state.owner, state.caller_id)) is state:
            del self._by_caller[(state.owner, state.caller_id)]

    def expired(self, now: datetime) -> list[ConnectionState]:
        """Return the connections whose caller's token is over."""
        return [state for state in self._by_id.values() if state.expires is not None and state.expires <= now]

    def __iter__(self) -> Iterator[ConnectionState]:
        return iter(tuple(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)
