"""What a change would send to proxies: found by translating the planned mesh beside the one in force.

One decision to know: the planned snapshot is made from the newest as the next one would be, and never published; so a
dry run costs what the change itself would, and says what the proxies of the whole mesh would get, wherever they are
connected. It gives way to other work all the time, and after `SECONDS` says that there is more.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from google.protobuf import descriptor_pool, text_format
from google.protobuf.any_pb2 import Any

from meshwright.core import clock as clocks
from meshwright.manager.configapi.plan import Action
from meshwright.manager.model import mesh as meshes
from meshwright.manager.xds import names, types, wire
from meshwright.manager.xds.hub import Hub
from meshwright.manager.xds.snapshot import Snapshot, View

SECONDS = 8.0
MAX_CHANGES = 2_000
MAX_TEXT = 1 << 20  # characters of differences
_AT_ONCE = 20  # proxies between two looks at other work
_CONTEXT = 2  # lines around a difference


class Depth(Enum):
    """How much is wanted."""

    NONE = 0
    NAMES = 1
    TEXT = 2


@dataclass(frozen=True, slots=True)
class ResourceChange:
    """One resource that `proxies` proxies would be sent, or told that it is gone."""

    type_url: str
    name: str
    action: Action
    proxies: int
    diff: str = ""


@dataclass(frozen=True, slots=True)
class Preview:
    """All changes, in the order in which types are sent; `left_out`: there are more."""

    changes: tuple[ResourceChange, ...] = ()
    left_out: bool = False


_Change = tuple[str, str, bytes, bytes]  # type, name, before, after; shared by the proxies that see the same


class Previews:
    """Makes previews against what a hub has published."""

    def __init__(self, hub: Hub, parameters: names.Parameters, clock: clocks.Clock | None = None) -> None:
        self._hub, self._parameters, self._clock = hub, parameters, clock or clocks.SystemClock()

    async def of(self, planned: meshes.Mesh, depth: Depth) -> Preview:
        """Say what proxies would get if `planned` came into force now."""
        before = self._hub.latest
        if depth is Depth.NONE or before is None:
            return Preview()
        after = Snapshot(planned, self._parameters, before)
        end = self._clock.monotonic() + SECONDS
        found: dict[_Change, int] = {}
        left_out = False
        for number, proxy in enumerate(sorted({*before.proxies(), *after.proxies()})):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
                if self._clock.monotonic() > end:
                    left_out = True
                    break
            for change in _changes(before.view(*proxy), after.view(*proxy)):
                if change in found or len(found) < MAX_CHANGES:
                    found[change] = found.get(change, 0) + 1
                else:
                    left_out = True
        return Preview(tuple(_told(found, depth)), left_out)


_TYPES = (types.CLUSTER, types.ENDPOINT, types.LISTENER, types.ROUTE)


def _changes(before: View | None, after: View | None) -> Iterator[_Change]:
    for type_url in _TYPES:
        if before is not None and after is not None and before.mark(type_url) == after.mark(type_url):
            continue
        was = before.all(type_url) if before else {}
        now = after.all(type_url) if after else {}
        for name in {*was, *now}:
            old, new = was.get(name), now.get(name)
            if old != new:
                yield type_url, name, old.body if old else b"", new.body if new else b""


def _told(found: Mapping[_Change, int], depth: Depth) -> Iterator[ResourceChange]:
    room = MAX_TEXT
    for change in sorted(found, key=lambda change: (_TYPES.index(change[0]), change[1])):
        type_url, name, before, after = change
        action = Action.CHANGED if before and after else Action.CREATED if after else Action.DELETED
        diff = ""
        if depth is Depth.TEXT and room > 0:
            diff = "\n".join(
                difflib.unified_diff(
                    _lines(before), _lines(after), f"{name} before", f"{name} after", "", "", _CONTEXT, ""
                )
            )
            diff = diff if len(diff) <= room else diff[:room] + "\n… (left out)"
            room -= len(diff)
        yield ResourceChange(type_url, name, action, found[change], diff)


def _lines(body: bytes) -> list[str]:
    """Return a resource as protobuf's text, which also shows messages that aren't known here."""
    if not body:
        return []
    packed = Any.FromString(wire.content(body))
    text = text_format.MessageToString(packed, descriptor_pool=descriptor_pool.Default())
    return text.splitlines()
