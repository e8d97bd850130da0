"""Follows a collection of objects: all of them first, then each change, for as long as the process runs.

One decision to know: what was heard last holds until something newer is heard. A watch that broke goes on from its last
revision; where that is gone (410), everything is listed again, so that a deletion that was missed is made good by its
absence. How stale it may be is the follower's to say: `heard` is called whenever the server has said that this is the
present.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from meshwright.core import clock as clocks
from meshwright.core import errors, renewal
from meshwright.core.health import Health
from meshwright.core.kubernetes.api import Api, TooLarge

MAX_OBJECTS = 200_000
PAGE = 500

_WATCH_SECONDS = 240  # the server ends a watch then; each beginning of one shows that it answers
_LOOK_AGAIN_SECONDS = 10.0  # for a collection that the server may come to know

Object = Mapping[str, Any]


async def follow(
    api: Api,
    path: str,
    on_snapshot: Callable[[list[Object]], None],
    on_change: Callable[[Object, bool], None],
    *,
    health: Health,
    part: str,
    clock: clocks.Clock | None = None,
    heard: Callable[[], None] = lambda: None,
    broke: Callable[[], None] = lambda: None,
    absent: Callable[[], None] | None = None,
    keep: Callable[[Object], Object] = lambda item: item,
    seconds: int = _WATCH_SECONDS,
    **query: str,
) -> None:
    """Follow the collection at `path` until cancelled; `query` may hold labelSelector and fieldSelector.

    `on_snapshot` gets all objects, `on_change` one and whether it was deleted; `health` hears of outages as `part`, and
    each calls `broke`. `keep` is what is kept of an object while a list is read. With `absent` a collection that the
    server doesn't know is no outage: it is called, and the server is asked again now and then. `seconds` bounds how
    long nobody notices that a silent connection lost its other end.
    """
    clock = clock or clocks.SystemClock()
    backoff = renewal.Backoff(first=0.5, cap=15.0)
    revision: str | None = None
    while True:
        try:
            if revision is None:
                objects, revision = await _list(api, path, query, keep)
                on_snapshot(objects)
                health.set(part, True)
                heard()
            async with contextlib.aclosing(_watch(api, path, revision, query, seconds)) as changes:
                async for item, at, deleted in changes:
                    revision = at
                    backoff.reset()
                    if item is not None:
                        on_change(item, deleted)
                    health.set(part, True)
                    heard()
            # It ended as it was asked to; one that ends at once again and again shall not turn into a busy loop.
            await clock.sleep(0.05)
            continue
        except errors.Conflict:
            revision = None
            reason = "the revision to follow from is gone"
        except errors.NotFound as error:
            revision = None
            reason = str(error)
            if absent is not None:
                absent()
                health.set(part, True)
                await clock.sleep(_LOOK_AGAIN_SECONDS * random.uniform(0.8, 1.2))
                continue
        except errors.MeshwrightError as error:
            reason = str(error)
        health.outage(part, reason)
        broke()
        await clock.sleep(backoff.delay())


async def _list(
    api: Api, path: str, query: Mapping[str, str], keep: Callable[[Object], Object]
) -> tuple[list[Object], str]:
    """Return everything, in pages of one consistent revision, and that revision."""
    objects: list[Object] = []
    token, size = "", PAGE
    while True:
        try:
            page = await api.get(path, limit=str(size), **({"continue": token} if token else {}), **query)
        except TooLarge:
            # Whoever may write objects of a kind may write large ones; that mustn't keep all others from being read.
            if size == 1:
                raise
            size = max(1, size // 8)
            continue
        objects += (keep(item) for item in page.get("items") or () if isinstance(item, dict))
        if len(objects) > MAX_OBJECTS:
            raise errors.Exhausted(f"{path} has more than {MAX_OBJECTS} objects")
        metadata = page.get("metadata") or {}
        token = str(metadata.get("continue") or "")
        if not token:
            return objects, str(metadata.get("resourceVersion") or "0")


async def _watch(
    api: Api, path: str, revision: str, query: Mapping[str, str], seconds: int
) -> AsyncGenerator[tuple[Object | None, str, bool], None]:
    """Yield (object, or None for none; the revision reached; whether it was deleted). Conflict: list again."""
    events = api.watch(path, seconds=seconds, resourceVersion=revision, **query)
    async with contextlib.aclosing(events):
        async for event in events:
            if not event:  # the watch has begun: what was heard before is the present
                yield None, revision, False
                continue
            kind, item = event.get("type"), event.get("object")
            if not isinstance(item, dict):
                raise errors.Unavailable(f"the API server sent an event without an object for {path}")
            if kind == "ERROR":
                message = str(item.get("message") or item)[:500]
                if item.get("code") == 410:
                    raise errors.Conflict(message)
                raise errors.Unavailable(f"the API server, watch {path}: {message}")
            if kind == "BOOKMARK":
                yield None, version(item), False
            elif kind in ("ADDED", "MODIFIED", "DELETED"):
                yield item, version(item), kind == "DELETED"


def version(item: Object) -> str:
    """Return an object's revision, which is opaque."""
    return str((item.get("metadata") or {}).get("resourceVersion") or "")
