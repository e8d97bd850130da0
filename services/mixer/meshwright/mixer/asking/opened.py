"""One handler of the configuration, open or trying to be.

One decision to know: the adapter's context is entered and left in one task that lives as long as the handler, so an
adapter may hold task groups in it. When it fails while open, it is opened again, as when it can't be opened at first.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable, Callable
from types import CoroutineType
from typing import Any

from meshwright.core import clock as clocks
from meshwright.core.renewal import Backoff
from meshwright.mixer.adapter.v1 import Adapter, CheckResult, QuotaResult
from meshwright.mixer.adapter.v1.interface import is_blocking
from meshwright.mixer.asking import loop as loops
from meshwright.mixer.asking.environment import Environment
from meshwright.mixer.asking.threads import Threads

OPEN_SECONDS = 8.0
"""Deadline of opening."""
CLOSE_SECONDS = 5.0
"""Deadline of closing, and of the calls that are under way when a handler is to close."""


_PLAIN = (CheckResult, QuotaResult, dict)  # what methods return mostly, told apart without looking closely


class NotOpenError(Exception):
    """The handler can't be called now; the message says why."""


Tell = Callable[[str | None], None]
"""Hears why the handler isn't open; None when it is."""


class OpenHandler:
    """Lives on the adapters' loop. `call` its methods while it `is_open`."""

    def __init__(
        self,
        name: str,
        adapter: Adapter,
        parameters: Any,
        environment: Callable[[], Environment],
        loop: loops.AdapterLoop,
        tell: Tell,
        clock: clocks.Clock,
    ) -> None:
        self.name, self._adapter, self.parameters = name, adapter, parameters
        self._environment, self._loop, self._tell, self._clock = environment, loop, tell, clock
        self._reason = "it isn't open yet"
        self._methods: dict[str, tuple[Callable[..., Any], bool, str]] | None = None
        self._handler: Any = None
        self._own: Environment | None = None
        self._context = contextvars.copy_context()
        self._threads = Threads(name)
        self._tried, self._closing, self._idle = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._calls = 0
        self._idle.set()
        self._life = asyncio.get_running_loop().create_task(self._live(), name=f"{name}: life")

    @property
    def is_open(self) -> bool:
        """Whether it can be called."""
        return self._methods is not None

    @property
    def adapter(self) -> str:
        """The adapter's name."""
        return self._adapter.name

    async def tried(self) -> None:
        """Return when it is open, or couldn't be opened the first time."""
        await self._tried.wait()

    def call(self, method: str, *arguments: Any) -> Any:
        """The result of a plain method, or a future of any other; NotOpenError when there is nothing to call."""
        function, blocks, name = self._method(method)
        if blocks:
            return self._watched(self._threads.run(function, *arguments))
        self._loop.inline = self._own
        try:
            result = self._context.run(function, *arguments)
        finally:
            self._loop.inline = None
        if isinstance(result, _PLAIN) or not inspect.isawaitable(result):
            return result
        coroutine = result if isinstance(result, CoroutineType) else _awaited(result)
        assert self._own is not None
        return self._watched(loops.begin(coroutine, self._own, self._context.copy(), name))

    async def close(self) -> None:
        """Close when the calls under way have ended, at the latest after the deadline; never raises, never hangs."""
        self._closing.set()
        _, left = await asyncio.wait({self._life}, timeout=2 * CLOSE_SECONDS + 1)
        for task in left:
            task.cancel()

    def _method(self, name: str) -> tuple[Callable[..., Any], bool, str]:
        methods = self._methods
        if methods is None:
            raise NotOpenError(self._reason)
        found = methods.get(name)
        if found is None:
            function = getattr(self._handler, name, None)
            if function is None:
                raise NotOpenError(f"adapter {self.adapter} takes such instances, but its handler has no method {name}")
            found = methods[name] = (function, is_blocking(function), f"{self.name}: {name}")
        return found

    def _watched(self, future: asyncio.Future[Any]) -> asyncio.Future[Any]:
        self._calls += 1
        self._idle.clear()
        future.add_done_callback(self._ended)
        return future

    def _ended(self, future: asyncio.Future[Any]) -> None:
        if isinstance(future, asyncio.Task):
            loops.ended(future)
        self._calls -= 1
        if not self._calls:
            self._idle.set()

    async def _live(self) -> None:
        backoff = Backoff(0.5, 30.0)
        while not self._closing.is_set():
            try:
                await self._once(backoff)
            except (Exception, SystemExit, KeyboardInterrupt) as error:
                late = isinstance(error, TimeoutError) and not str(error)
                self._reason = f"it can't be opened: {'not in time' if late else f'{type(error).__name__}: {error}'}"
                self._tell(self._reason)
            self._tried.set()
            await self._pause(backoff.delay())
        self._threads.close()

    async def _once(self, backoff: Backoff) -> None:
        """Open, stay open until the handler is to close, and close."""
        loop = asyncio.get_running_loop()
        own = self._environment()
        task = asyncio.current_task()
        token = loops.owner.set(own)
        try:
            async with asyncio.timeout(OPEN_SECONDS) as deadline:
                async with self._adapter.open(self.parameters, own) as handler:
                    deadline.reschedule(None)
                    self._opened(handler, own)
                    backoff.reset()
                    try:
                        await self._closing.wait()
                        await self._quiet()
                    finally:
                        self._methods, self._reason = None, "it has closed"
                        deadline.reschedule(loop.time() + CLOSE_SECONDS)
        finally:
            loops.owner.reset(token)
            await own.close(task)

    def _opened(self, handler: Any, own: Environment) -> None:
        self._context = contextvars.copy_context()
        self._handler, self._own, self._methods = handler, own, {}
        self._tell(None)
        self._tried.set()

    async def _quiet(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._idle.wait()
        except TimeoutError:
            return  # what hangs is cancelled with the handler's other tasks

    async def _pause(self, seconds: float) -> None:
        """Wait until it is time to try again, or there is no need to."""
        if self._closing.is_set():
            return
        closing = asyncio.create_task(self._closing.wait())
        pause = asyncio.create_task(self._clock.sleep(seconds))
        try:
            await asyncio.wait({closing, pause}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            closing.cancel()
            pause.cancel()


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result
