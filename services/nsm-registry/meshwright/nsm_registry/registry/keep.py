"""The end of the chain: the object is written to the store, or removed from it, by its owner only."""

from __future__ import annotations

from typing import Any

from meshwright.core import errors
from meshwright.nsm_registry.registry.chain import Exchange, Proceed
from meshwright.nsm_registry.registry.records import Records, check_free_of

_ATTEMPTS = 4  # another replica may have been first; after that somebody is fighting over the name


class Keep:
    """Writes with compare-and-set, so that of two who register a name at once one owns it."""

    def __init__(self, records: Records) -> None:
        self._records = records

    async def __call__(self, message: Any, exchange: Exchange, proceed: Proceed) -> Any:
        """Write or remove, and go on."""
        for attempt in range(_ATTEMPTS):
            check_free_of(self._records.directory.get(message.name), exchange.owner, message.name)
            try:
                if exchange.registering:
                    await self._records.put(message, exchange.owner)
                else:
                    await self._records.remove(message.name)
                break
            except errors.Conflict:
                if attempt == _ATTEMPTS - 1:
                    raise
                await self._records.refetch(message.name)
        return await proceed(message, exchange)
