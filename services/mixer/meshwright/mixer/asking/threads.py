"""A bounded pool of threads for one handler's blocking methods.

One decision to know: its threads are daemons and nobody waits for them, unlike those of `concurrent.futures`, which
Python joins at its end: an adapter that hangs in one must not keep mixer from stopping.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any

MOST = 16
"""Threads of one handler; further calls wait, and their deadlines run."""

_Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class Threads:
    """Threads are started as calls come; `close` ends those that are idle, and the others after their call."""

    def __init__(self, name: str, most: int = MOST) -> None:
        self._name, self._most = name, most
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._started = 0

    def run(self, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        """Run it in a thread, with the caller's context; cancelling the future leaves the thread to itself."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()
        self._jobs.put((loop, future, lambda: context.run(function, *arguments)))
        if not self._idle.acquire(blocking=False) and self._started < self._most:
            self._started += 1
            threading.Thread(target=self._work, name=f"adapter {self._name}", daemon=True).start()
        return future

    def close(self) -> None:
        """Start nothing more."""
        for _ in range(self._started):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            loop, future, function = job
            if not future.cancelled():
                result, error = None, None
                try:
                    result = function()
                except BaseException as raised:
                    # SystemExit too: nothing that an adapter raises ends a thread of mixer's.
                    error = raised
                try:
                    loop.call_soon_threadsafe(_settle, future, result, error)
                except RuntimeError:
                    return  # the loop has ended, and with it whoever asked
            self._idle.release()


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, Exception) and not isinstance(error, StopIteration):
        future.set_exception(error)
    else:
        future.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))
