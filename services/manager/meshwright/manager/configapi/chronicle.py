"""What happened to the configuration: its revisions, how they differ, and those to come.

One decision to know: a watcher is sent what the ledger keeps of each revision, never what this replica remembers. So it
may go on at any replica, and is told when what it missed is no longer kept.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from meshwright.core import errors
from meshwright.core.config import History, Key
from meshwright.core.config.history import Difference, Events, Revision
from meshwright.manager.configapi.catalogue import Catalogue, State
from meshwright.manager.configapi.selection import Selection
from meshwright.manager.model import kinds

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_REVISIONS = 1_000
MAX_WATCHERS = 100

_REVISIONS = 50


class Chronicle:
    """The history, as the API tells it. Without `history` the configuration is a folder's, which has none."""

    def __init__(self, history: History | None, catalogue: Catalogue) -> None:
        self._history, self._catalogue = history, catalogue
        self._watchers = 0

    async def bounds(self) -> tuple[int, int]:
        """Return (floor, head)."""
        return await self._kept().bounds()

    async def revisions(self, selection: Selection, *, before: int = 0, limit: int = 0) -> list[Revision]:
        """Return revisions that changed what is selected, the newest first."""
        if limit > MAX_REVISIONS:
            raise errors.ConfigError(
                f"is {limit}: at most {MAX_REVISIONS} revisions are told at once",
                field="limit",
                remedy="go on with 'before'",
            )
        wanted = selection.wanted
        names = [kind.name for kind in kinds.KINDS if kind.name.lower() == wanted.kind.lower()]
        return await self._kept().revisions(
            kinds=names, namespace=wanted.namespace, name=wanted.name, before=before, limit=limit or _REVISIONS
        )

    def differences(self, older: int, newer: int, after: Key | None = None) -> AsyncIterator[Difference]:
        """Yield how objects differ between two revisions."""
        return self._kept().differences(older, newer, after=after)

    async def restoring(self, revision: int, state: State) -> tuple[dict[Key, str], set[Key]]:
        """Return what must be put into `state` and deleted from it to have that of `revision` again."""
        history = self._kept()
        then = await history.state(revision)
        moved = {key: place for key, place in then.items() if state.revisions.get(key) != place.revision}
        texts = await history.texts(moved.values())
        put = {
            key: texts[place]
            for key, place in moved.items()
            if key not in state.objects or state.objects[key].text != texts[place]
        }
        return put, {key for key in state.objects if key not in then}

    async def blame(self, key: Key | None, revision: int) -> str:
        """Say who made a revision and when; with revision 0, who deleted the object ``key``, if it ever was there."""
        if self._history is None:
            return "somebody"
        if key is not None and not revision:
            found = await self._history.revisions(kinds=[key.kind], namespace=key.namespace, name=key.name, limit=1)
            commit = found[0].commit if found else None
        else:
            commit = await self._history.commit(revision)
        if commit is None:
            return "somebody"
        return f"{commit.author or 'somebody'} at {commit.time}" + (f" ({commit.message})" if commit.message else "")

    async def watch(self, after: int | None) -> AsyncIterator[Events]:
        """Yield what each revision after `after` changed, for ever; None: those to come."""
        history = self._kept()
        with self._watching():
            position = await self.checked(after)
            while True:
                while position < self._catalogue.state.revision:
                    position += 1
                    yield await history.events(position)
                await self._catalogue.beyond(position)

    async def checked(self, after: int | None) -> int:
        """Return the revision after which a watch begins; Compacted or NotFound when it can't begin there."""
        floor, head = await self._kept().bounds()
        position = self._catalogue.state.revision if after is None else after
        if position > head:
            raise errors.NotFound(f"there is no revision {position} yet: the newest is {head}")
        if position < floor:
            raise errors.Compacted(
                f"changes after revision {position} are no longer kept, only those after {floor}: list the objects, "
                "then watch after the list's revision"
            )
        return position

    @contextmanager
    def _watching(self) -> Iterator[None]:
        if self._watchers >= MAX_WATCHERS:
            raise errors.Exhausted(f"{MAX_WATCHERS} watchers are connected to this manager already: end one")
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1

    def _kept(self) -> History:
        if self._history is None:
            raise errors.ConfigError(
                "this manager serves a folder of files, which has no history here",
                remedy="look where the files are kept",
            )
        return self._history
