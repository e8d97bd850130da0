"""Which replicas of the manager there are: each puts its address into the store, under a lease.

A lease that was lost (etcd away for longer than it lasts) is taken anew; meanwhile the others don't ask this one, which
costs them a line in `meshwright status` and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import structlog

from meshwright.core import errors
from meshwright.core.health import Health
from meshwright.core.store import Store

PREFIX = "/meshwright/manager/replicas/"

_TTL_SECONDS = 15.0
_RETRY_SECONDS = 2.0

_log = structlog.get_logger(__name__)


class Replicas:
    """This replica's entry, and those of the others."""

    def __init__(self, store: Store, name: str, health: Health) -> None:
        self._store, self._name, self._health = store, name, health

    async def announce(self, address: str) -> None:
        """Keep this replica's address in the store until cancelled."""
        while True:
            try:
                async with self._store.lease(_TTL_SECONDS) as lease:
                    await self._store.put(PREFIX + self._name, address.encode(), lease=lease)
                    self._health.set("replicas", ok=True)
                    await lease.lost.wait()
            except errors.MeshwrightError as error:
                self._health.degrade("replicas", f"other managers may not know this one: {error}")
                _log.warning("announcement_failed", reason=str(error))
            await asyncio.sleep(_RETRY_SECONDS)

    async def others(self) -> Iterable[tuple[str, str]]:
        """Return name and address of every other replica; none while the store can't be read."""
        try:
            entries, _ = await self._store.list(PREFIX)
        except errors.MeshwrightError as error:
            _log.warning("replicas_unknown", reason=str(error))
            return ()
        return [
            (entry.key.removeprefix(PREFIX), entry.value.decode())
            for entry in entries
            if entry.key != PREFIX + self._name
        ]
