"""Where changes are committed, whoever makes them: the configuration API or the mirror of a cluster."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from meshwright.core.config import Key


class Writer(Protocol):
    """The ledger, as those who change configuration see it."""

    async def commit(
        self, put: Mapping[Key, str], delete: Collection[Key], expected: int, *, author: str = "", message: str = ""
    ) -> int:
        """Commit JSON texts and deletions in one revision and return it; raise Conflict unless `expected` is newest."""
        ...
