"""Follows a prefix for as long as its task lives: the list first, then each change, and the list again when it must."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence

import structlog

from meshwright.core import clock as clocks
from meshwright.core import errors
from meshwright.core.health import Health
from meshwright.core.store.api import Change, Entry, Resync, Store

_log = structlog.get_logger(__name__)
_FIRST_PAUSE, _LAST_PAUSE = 0.2, 5.0

OnSnapshot = Callable[[Sequence[Entry], int], Awaitable[None] | None]
OnChange = Callable[[Change], Awaitable[None] | None]


async def follow(
    store: Store,
    prefix: str,
    on_snapshot: OnSnapshot,
    on_change: OnChange,
    *,
    health: Health | None = None,
    part: str = "store",
    clock: clocks.Clock | None = None,
) -> None:
    """Call `on_snapshot(entries, revision)`, then `on_change(change)` for each later change; never returns.

    The callbacks may be coroutine functions; the next change waits for them. While the store is away the last state
    stands and `health` says so under `part`; after a gap `on_snapshot` is called again with everything.
    """
    clock = clock or clocks.SystemClock()
    pause = _FIRST_PAUSE

    def report(reason: str) -> None:
        if health is None:
            return
        if reason:
            health.outage(part, reason)
        else:
            health.set(part, True)

    while True:
        try:
            entries, revision = await store.list(prefix)
        except (errors.Unavailable, errors.DeadlineExceeded) as error:
            report(str(error))
            await clock.sleep(pause)
            pause = min(pause * 2, _LAST_PAUSE)
            continue
        pause = _FIRST_PAUSE
        await _finish(on_snapshot(entries, revision))
        report("")
        async for item in store.watch(prefix, revision, report=report):
            if isinstance(item, Resync):
                _log.warning("store_list_again", prefix=prefix, reason=item.reason)
                break
            await _finish(on_change(item))
        await clock.sleep(pause)  # a member that lags behind makes us list again until it has caught up


async def _finish(result: Awaitable[None] | None) -> None:
    if inspect.isawaitable(result):
        await result
