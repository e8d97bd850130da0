"""Tells changes of a hop's connections to whoever watches, each watcher at its own pace.

One decision to know: a watcher has a bounded queue of its own. One that doesn't keep up is ended with the reason and
may come back for a full picture; in the original one slow watcher holds up everybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from meshwright.core import errors
from meshwright.nsm import wire
from meshwright.nsm.chain import Exchange, Proceed
from meshwright.nsm.wire import Connection, ConnectionEvent, MonitorScopeSelector, NetworkServiceRequest

_QUEUE = 256  # events that a watcher may lag behind
_WATCHERS = 1024


class Monitor:
    """The connections of one hop as watchers see them; also the element that feeds it."""

    def __init__(self) -> None:
        self._connections: dict[str, Connection] = {}
        self._watchers: set[_Watcher] = set()

    async def __call__(self, request: NetworkServiceRequest, exchange: Exchange, proceed: Proceed) -> Connection:
        """Go on, then tell what became of the connection."""
        answer = await proceed(request, exchange)
        if exchange.closing:
            self.delete(exchange.state.id)
        else:
            self.update(answer)
        return answer

    def update(self, connection: Connection) -> None:
        """Tell that a connection is there or changed; also for an unchanged refresh, as the original does."""
        known = Connection()
        known.CopyFrom(connection)
        self._connections[known.id] = known
        self._tell(wire.UPDATE, known)

    def down(self, identifier: str) -> None:
        """Tell that a connection carries nothing at the moment."""
        known = self._connections.get(identifier)
        if known is not None and known.state != wire.DOWN:
            changed = Connection()
            changed.CopyFrom(known)
            changed.state = wire.DOWN
            self.update(changed)

    def delete(self, identifier: str) -> None:
        """Tell that a connection is closed."""
        known = self._connections.pop(identifier, None)
        if known is not None:
            self._tell(wire.DELETE, known)

    async def watch(self, selector: MonitorScopeSelector, viewer: str | None = None) -> AsyncIterator[ConnectionEvent]:
        """Yield what the selector fits, first all of it in one event, then the changes.

        A `viewer` sees the connections that its SPIFFE ID is a hop of; None sees all. Raises Exhausted for a watcher
        that is too slow.
        """
        if len(self._watchers) >= _WATCHERS:
            raise errors.Exhausted(f"{_WATCHERS} watchers are connected already")
        watcher = _Watcher(selector, viewer)
        fitting = {key: value for key, value in self._connections.items() if watcher.fits(value)}
        self._watchers.add(watcher)
        try:
            yield ConnectionEvent(type=wire.INITIAL_STATE_TRANSFER, connections=fitting)
            while True:
                yield await watcher.next()
        finally:
            self._watchers.discard(watcher)

    def _tell(self, kind: wire.ConnectionEventType, connection: Connection) -> None:
        for watcher in tuple(self._watchers):
            if watcher.fits(connection):
                watcher.put(ConnectionEvent(type=kind, connections={connection.id: connection}))


class _Watcher:
    def __init__(self, selector: MonitorScopeSelector, viewer: str | None) -> None:
        self._selector, self._viewer = selector, viewer
        self._events: asyncio.Queue[ConnectionEvent] = asyncio.Queue(_QUEUE)
        self._late = False

    def fits(self, connection: Connection) -> bool:
        return visible(connection, self._viewer) and selected(connection, self._selector)

    def put(self, event: ConnectionEvent) -> None:
        try:
            self._events.put_nowait(event)
        except asyncio.QueueFull:
            self._late = True

    async def next(self) -> ConnectionEvent:
        if self._late:
            raise errors.Exhausted(f"this watcher is more than {_QUEUE} events behind (watch again)")
        return await self._events.get()


def selected(connection: Connection, selector: MonitorScopeSelector) -> bool:
    """Return whether the selector's segments are a contiguous part of the path and its services name this one."""
    if selector.network_services and connection.network_service not in selector.network_services:
        return False
    wanted, segments = selector.path_segments, connection.path.path_segments
    for start in range(len(segments) - len(wanted) + 1):
        pairs = zip(wanted, segments[start:], strict=False)
        if all(
            want.name in ("", has.name) and want.id in ("", has.id) and want.token in ("", has.token)
            for want, has in pairs
        ):
            return True
    return False


def visible(connection: Connection, viewer: str | None) -> bool:
    """Return whether `viewer` (a SPIFFE ID; None: anybody) is one of the connection's hops."""
    return viewer is None or viewer in subjects(segment.token for segment in connection.path.path_segments)


def subjects(texts: Iterable[str]) -> set[str]:
    """Return who signed these path tokens; one that can't be read names nobody."""
    from meshwright.nsm import tokens  # only where identities are looked at

    found = set()
    for text in texts:
        try:
            found.add(tokens.parse(text).subject)
        except errors.Forbidden:
            continue
    return found
