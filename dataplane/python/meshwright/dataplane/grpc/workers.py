"""The threads for handlers that may block: bounded, started when there is work, shared by all methods of a server."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

Job = Callable[[], None]


class Workers:
    """At most `most` threads; further jobs wait for one. A job must not raise."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._jobs: dict[int, Job] = {}
        # Numbers only: a job that is forgotten leaves nothing behind but its number.
        self._waiting: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def submit(self, number: int, job: Job) -> None:
        """Have a thread do `job`, unless it is forgotten before."""
        self._jobs[number] = job
        self._waiting.put(number)
        # A job that is still there may just not have been taken yet; a thread too many costs little, and once.
        if len(self._threads) < self._most and self._waiting.qsize() > 0:
            # Daemons: a handler that blocks for ever must not keep the process from ending.
            name = f"grpc-handler-{len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def forget(self, number: int) -> None:
        """Drop a job that no thread has begun."""
        self._jobs.pop(number, None)

    def stop(self) -> None:
        """End each thread after the job that it is at; jobs that wait are dropped."""
        self._jobs.clear()
        for _ in self._threads:
            self._waiting.put(None)
        self._threads.clear()

    def _work(self) -> None:
        while (number := self._waiting.get()) is not None:
            job = self._jobs.pop(number, None)
            if job is not None:
                job()
            del job  # whatever it holds isn't kept until the next one comes
