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
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def submit(self, job: Job) -> None:
        """Have a thread do `job`."""
        self._jobs.put(job)
        # A job that is still there may just not have been taken yet; a thread too many costs little, and once.
        if len(self._threads) < self._most and self._jobs.qsize() > 0:
            # Daemons: a handler that blocks for ever must not keep the process from ending.
            name = f"grpc-handler-{len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """End each thread after the job that it is at; jobs that wait are dropped."""
        while True:
            try:
                self._jobs.get_nowait()
            except queue.Empty:
                break
        for _ in self._threads:
            self._jobs.put(None)
        self._threads.clear()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # whatever it holds isn't kept until the next one comes
