"""All handlers of the policy in force, by name, and those of the one before that may still be asked.

Lives on the adapters' loop. A handler whose adapter and parameters stay the same stays open through policies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from meshwright.mixer.asking.opened import OPEN_SECONDS, OpenHandler
from meshwright.mixer.config.compiled import Sink

_log = structlog.get_logger(__name__)

Make = Callable[[str, Sink], OpenHandler]


class Handlers:
    """`prepare` a policy's handlers before it is loaded, `commit` when it was, `retire` when nothing asks as before."""

    def __init__(self, make: Make, forget: Callable[[str], None]) -> None:
        self._make, self._forget = make, forget
        self._current: dict[str, tuple[Sink, OpenHandler]] = {}
        self._next: dict[str, tuple[Sink, OpenHandler]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._wanted: frozenset[str] = frozenset()

    def get(self, name: str) -> OpenHandler | None:
        """The handler of that name, the policy's in force first."""
        found = self._current.get(name)
        return found[1] if found else None

    def __len__(self) -> int:
        """How many there are, those that are closing left out."""
        return len(self._current)

    async def prepare(self, wanted: Mapping[str, Sink]) -> None:
        """Open what isn't open yet; one that can't be opened is tried again and again, and doesn't hold up the rest."""
        await self._drop_next()
        for name, sink in wanted.items():
            known = self._current.get(name)
            self._next[name] = known if known and known[0] == sink else (sink, self._make(name, sink))
        opening = [asyncio.create_task(handler.tried()) for _, handler in self._next.values()]
        if opening:
            _, late = await asyncio.wait(opening, timeout=OPEN_SECONDS)
            for task in late:
                task.cancel()

    def commit(self) -> None:
        """From now on questions go to what was prepared; what isn't wanted any more stays until `retire`."""
        prepared, self._next = self._next, {}
        for name, (sink, handler) in prepared.items():
            replaced = self._current.get(name)
            self._current[name] = (sink, handler)
            if replaced and replaced[1] is not handler:
                self._close(replaced[1])
        self._wanted = frozenset(prepared)

    def retire(self) -> None:
        """Close what the policy in force doesn't want."""
        for name in self._current.keys() - self._wanted:
            self._close(self._current.pop(name)[1])
            self._forget(name)

    async def close(self) -> None:
        """Close all."""
        await self._drop_next()
        for name in [*self._current]:
            self._close(self._current.pop(name)[1])
        if self._closing:
            await asyncio.wait(self._closing)

    async def _drop_next(self) -> None:
        """Close what was prepared for a policy that then wasn't loaded."""
        prepared, self._next = self._next, {}
        for name, (_, handler) in prepared.items():
            known = self._current.get(name)
            if known is None or known[1] is not handler:
                self._close(handler)

    def _close(self, handler: OpenHandler) -> None:
        task = asyncio.get_running_loop().create_task(handler.close(), name=f"close {handler.name}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        _log.info("handler_closing", handler=handler.name, adapter=handler.adapter)
