"""The path of a connection: which hops it passed, and which id each of them gave it.

Pure functions on the message (nsm.md, pitfall 4). `index` points at the hop that sends. A hop steps forward to its own
segment when a request comes in and back to the caller's when it answers; later segments stay, so that a refresh finds
the same ids again all the way.
"""

from __future__ import annotations

import uuid

from meshwright.nsm.errors import InvalidPath
from meshwright.nsm.wire import Connection, PathSegment

MAX_HOPS = 32
MAX_TEXT = 1024  # octets of a name or an id


def start(connection: Connection, name: str, identifier: str) -> None:
    """Make `connection` begin here, at the client called `name`."""
    connection.id = identifier
    connection.path.Clear()
    connection.path.index = 0
    connection.path.path_segments.append(PathSegment(name=name, id=identifier))


def step_forward(connection: Connection, name: str, *, known: str | None = None) -> int:
    """Enter this hop's segment and return the caller's index.

    A later segment with this hop's name is taken up again; else a new one replaces what follows, with the id `known`
    (the one this hop gave the same connection earlier) or a fresh one.
    """
    check(connection)
    path = connection.path
    if not path.path_segments:  # a client without a path of its own
        path.path_segments.append(PathSegment(id=connection.id or str(uuid.uuid4())))
        path.index = 0
    before = path.index
    path.index = before + 1
    if path.index >= len(path.path_segments) or path.path_segments[path.index].name != name:
        del path.path_segments[path.index :]
        path.path_segments.append(PathSegment(name=name, id=known or str(uuid.uuid4())))
    connection.id = path.path_segments[path.index].id
    return before


def step_back(connection: Connection, before: int) -> None:
    """Leave this hop: the answer carries the caller's index and id."""
    connection.path.index = before
    connection.id = connection.path.path_segments[before].id


def check(connection: Connection) -> None:
    """Raise InvalidPath if the path can't be that of `connection`."""
    path = connection.path
    count = len(path.path_segments)
    if count > MAX_HOPS:
        raise InvalidPath(f"{count} hops", field="path.path_segments", remedy=f"a connection has {MAX_HOPS} at most")
    if len(connection.id.encode()) > MAX_TEXT:
        raise InvalidPath(f"longer than {MAX_TEXT} octets", field="id")
    for position, segment in enumerate(path.path_segments):
        if not segment.id or max(len(segment.id.encode()), len(segment.name.encode())) > MAX_TEXT:
            raise InvalidPath(f"has no id, or one beyond {MAX_TEXT} octets", field=f"path.path_segments[{position}]")
    if not count:
        if path.index:
            raise InvalidPath(f"is {path.index} in an empty path", field="path.index")
        return
    if path.index >= count:
        raise InvalidPath(f"is {path.index} in a path of {count}", field="path.index")
    current = path.path_segments[path.index].id
    if current != connection.id:
        raise InvalidPath(
            f"is {connection.id!r}, but the segment at path.index {path.index} has {current!r}",
            field="id",
            remedy="send back the connection as it was answered",
        )


def caller(connection: Connection, before: int) -> PathSegment:
    """Return the segment of the hop that called."""
    return connection.path.path_segments[before]
