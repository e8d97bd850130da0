"""Records on their way to mixer: collected into batches, sent in order, a bounded number waiting."""

from __future__ import annotations

import asyncio
from collections import deque

import grpc

from meshwright.core import clock as clocks
from meshwright.mixer.client.calls import Calls
from meshwright.mixer.client.encoding import Attributes, Words, compress
from meshwright.mixer.client.options import Options
from meshwright.mixer.client.statistics import Statistics

BYTES = 512 << 10
"""Of one Report: servers of old take 1 MiB."""


class Reports:
    """`run` is a task for the client's life; after `stop` it ends when all that waits is sent."""

    def __init__(self, calls: Calls, options: Options, clock: clocks.Clock, statistics: Statistics) -> None:
        self._calls, self._options, self._clock, self._statistics = calls, options, clock, statistics
        self._waiting: deque[tuple[Attributes, int]] = deque()
        self._first, self._full = asyncio.Event(), asyncio.Event()
        self._is_stopping = False

    def add(self, attributes: Attributes) -> bool:
        """Whether there was room."""
        if len(self._waiting) >= self._options.report_waiting:
            self._statistics.records_refused += 1
            return False
        # Encoded by itself: the size that it has at most, and a wrong value is its caller's error.
        words = Words()
        size = compress(attributes, words).ByteSize() + sum(len(word.encode()) + 2 for word in words)
        self._waiting.append((dict(attributes), size))
        self._first.set()
        if len(self._waiting) >= self._options.report_batch:
            self._full.set()
        return True

    async def run(self) -> None:
        """Send batches that are full or old enough."""
        while not self._is_stopping:
            await self._first.wait()
            pause = asyncio.ensure_future(self._clock.sleep(self._options.report_seconds))
            full = asyncio.ensure_future(self._full.wait())
            try:
                await asyncio.wait({pause, full}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                pause.cancel()
                full.cancel()
            await self.finish()
        await self.finish()  # told to stop before it began

    def stop(self) -> None:
        """Have `run` send what waits, and end: a batch under way isn't broken off."""
        self._is_stopping = True
        self._first.set()
        self._full.set()

    async def finish(self) -> None:
        """Send all that waits."""
        while batch := self._batch():
            try:
                await self._calls.report(batch)
                self._statistics.records_sent += len(batch)
            except grpc.aio.AioRpcError as error:
                # UNKNOWN: mixer took what it could read of it.
                self._statistics.records_lost += len(batch)
                self._statistics.last_failure = f"{error.code().name}: {error.details()}"

    def _batch(self) -> list[Attributes]:
        batch: list[Attributes] = []
        size = 0
        while self._waiting and len(batch) < self._options.report_batch:
            size += self._waiting[0][1]
            if batch and size > BYTES:
                break
            batch.append(self._waiting.popleft()[0])
        if not self._waiting:
            self._first.clear()
        if len(self._waiting) < self._options.report_batch:
            self._full.clear()
        return batch
