"""The loop on which all adapters run: an asyncio loop in a thread of its own.

One decision to know: it isn't mixer's main loop. An adapter that forgets an `await` in front of something slow holds up
other adapters, whose questions then follow their failure policies; but the lease by which this replica owns quotas, its
health and its configuration are on the main loop, and go on.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import structlog

from meshwright.core import clock as clocks

T = TypeVar("T")

BLOCKED_SECONDS = 0.5
"""For how long the loop may be busy with one step before somebody is told."""
STOP_SECONDS = 3.0
"""How long a stopping mixer waits for the loop; an adapter that blocks it is left behind with its thread."""

_log = structlog.get_logger(__name__)


class Owner(Protocol):
    """Whoever tasks belong to: a handler."""

    @property
    def name(self) -> str:
        """The handler's name."""
        ...

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Take a new task into care; RuntimeError when there are too many."""
        ...

    def release(self, task: asyncio.Task[Any]) -> None:
        """It has ended."""
        ...


owner: contextvars.ContextVar[Owner | None] = contextvars.ContextVar("adapter_owner", default=None)
"""The handler that the running code belongs to; tasks inherit it."""


class AdapterLoop:
    """`async with AdapterLoop(blocked)`: `blocked` is told of the handler that blocks the loop, None when it's over."""

    def __init__(self, blocked: Callable[[str | None, str], None], clock: clocks.Clock | None = None) -> None:
        self._blocked = blocked
        self._clock = clock or clocks.SystemClock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: asyncio.Future[None] | None = None
        self._thread = threading.Thread(target=self._work, name="adapters", daemon=True)
        self._stop: asyncio.Event | None = None
        self._watch: asyncio.Task[None] | None = None
        self.inline: Owner | None = None  # whose plain method runs right now, outside of any task

    async def __aenter__(self) -> Self:
        """Start the thread; return when its loop runs."""
        main = asyncio.get_running_loop()
        self._running = main.create_future()
        self._main = main
        self._thread.start()
        await self._running
        self._watch = asyncio.create_task(self._watch_over(), name="watch the adapters' loop")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the loop, unless an adapter blocks it for good."""
        assert self._watch is not None
        self._watch.cancel()
        await asyncio.wait({self._watch})
        self.call(lambda: self._stop.set() if self._stop else None)
        await asyncio.to_thread(self._thread.join, STOP_SECONDS)
        if self._thread.is_alive():
            _log.warning("adapters_left_behind", reason="an adapter blocks its loop", where=self.where()[1])

    def call(self, function: Callable[[], object]) -> None:
        """Have the loop run `function` soon; from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function)

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and wait for it here; cancelling goes through."""
        if self._loop is None or self._loop.is_closed():
            coroutine.close()
            raise RuntimeError("the adapters' loop has ended")
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))

    def where(self) -> tuple[str | None, str]:
        """(handler, line of code) that the loop is at, as far as another thread can tell."""
        busy = self.inline
        task = asyncio.current_task(self._loop) if self._loop is not None else None
        if busy is None and task is not None:
            busy = _owners.get(task)
        frame = sys._current_frames().get(self._thread.ident or 0)
        stack = traceback.extract_stack(frame) if frame is not None else []
        return busy.name if busy else None, f"{stack[-1].filename}:{stack[-1].lineno}" if stack else "unknown"

    def _work(self) -> None:
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            life = loop.create_task(self._live())
            while not life.done():
                try:
                    loop.run_until_complete(life)
                except (SystemExit, KeyboardInterrupt) as error:
                    # Out of an adapter: what raised it has failed, and the loop goes on where it was left.
                    _log.warning("adapter_wants_to_exit", reason=f"{type(error).__name__}: {error}")

    async def _live(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(_task)
        self._loop, self._stop = loop, asyncio.Event()
        self._main.call_soon_threadsafe(self._begun)
        await self._stop.wait()

    def _begun(self) -> None:
        if self._running is not None and not self._running.done():
            self._running.set_result(None)

    async def _watch_over(self) -> None:
        """Ask the loop for a sign of life, and tell when it doesn't give one."""
        while True:
            alive = asyncio.Event()
            self.call(lambda alive=alive: self._main.call_soon_threadsafe(alive.set))  # type: ignore[misc]
            sign = asyncio.create_task(alive.wait(), name="sign of life")
            patience = asyncio.create_task(self._clock.sleep(BLOCKED_SECONDS), name="patience")
            try:
                await asyncio.wait({sign, patience}, return_when=asyncio.FIRST_COMPLETED)
                if not sign.done():
                    handler, line = self.where()
                    _log.warning("adapters_blocked", handler=handler, where=line)
                    self._blocked(handler, line)
                    await sign
                    self._blocked(None, "")
                await patience
            finally:
                for task in (sign, patience):
                    task.cancel()


_owners: dict[asyncio.Task[Any], Owner] = {}


def begin(coroutine: Coroutine[Any, Any, T], own: Owner, context: contextvars.Context, name: str) -> asyncio.Task[T]:
    """Make a task in the care of `own`; whoever began it calls `ended` from its own callback, which saves others."""
    task = asyncio.Task(coroutine, loop=asyncio.get_running_loop(), name=name, context=context)
    try:
        own.adopt(task)
    except RuntimeError:
        task.cancel()
        raise
    _owners[task] = own
    return task


def ended(task: asyncio.Task[Any]) -> None:
    """Let a task go."""
    own = _owners.pop(task, None)
    if own is not None:
        own.release(task)


def _task(loop: asyncio.AbstractEventLoop, coroutine: Any, **arguments: Any) -> asyncio.Task[Any]:
    """Make a task, in the care of the handler whose code makes it."""
    context = arguments.get("context")
    own = context.get(owner) if context is not None else owner.get()
    task = asyncio.Task(coroutine, loop=loop, **arguments)
    if own is not None:
        try:
            own.adopt(task)
        except RuntimeError:
            task.cancel()
            raise
        _owners[task] = own
        task.add_done_callback(ended)
    return task
