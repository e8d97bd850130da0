"""A bus inside one process, for services that run alone and for tests; the semantics are NATS'.

Messages of a durable stream live as long as the process: a service without NATS has nobody else to give them to.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from meshwright.core import clock as clocks
from meshwright.core import errors
from meshwright.core.bus import api
from meshwright.core.bus.headers import outgoing


@dataclass(eq=False, slots=True)
class _Listener:
    subject: str
    queue: str | None
    pending: asyncio.Queue[api.Message]


@dataclass(eq=False, slots=True)
class _Stored:
    subject: str
    data: bytes
    headers: dict[str, str]
    count: int = 0
    due: float = 0.0  # monotonic; not given before
    taken: bool = False
    settled: bool = False


@dataclass(slots=True)
class _Stream:
    subjects: tuple[str, ...]
    max_bytes: int
    messages: deque[_Stored] = field(default_factory=deque)
    ids: OrderedDict[str, float] = field(default_factory=OrderedDict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def size(self) -> int:
        return sum(len(message.data) for message in self.messages)


class MemoryBus:
    """Belongs to one event loop."""

    def __init__(self, clock: clocks.Clock | None = None) -> None:
        self._clock = clock or clocks.SystemClock()
        self._listeners: list[_Listener] = []
        self._streams: dict[str, _Stream] = {}
        self._turn = 0

    async def publish(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Tell every listener, and one member of each queue."""
        _check_size(data)
        message = api.Message(subject, data, outgoing(headers))
        queues: dict[str, list[_Listener]] = {}
        for listener in self._listeners:
            if matches(listener.subject, subject):
                if listener.queue is None:
                    _offer(listener, message)
                else:
                    queues.setdefault(listener.queue, []).append(listener)
        self._turn += 1
        for members in queues.values():
            _offer(members[self._turn % len(members)], message)

    async def subscribe(self, subject: str, queue: str | None = None) -> AsyncIterator[api.Message]:
        """Listen until the iterator is closed."""
        listener = _Listener(subject, queue, asyncio.Queue(api.PENDING_MESSAGES))
        self._listeners.append(listener)
        try:
            while True:
                yield await listener.pending.get()
        finally:
            self._listeners.remove(listener)

    async def ensure_stream(self, name: str, subjects: Sequence[str], *, max_bytes: int) -> None:
        """Create the stream or change its limits."""
        if known := self._streams.get(name):
            known.subjects, known.max_bytes = tuple(subjects), max_bytes
        else:
            self._streams[name] = _Stream(tuple(subjects), max_bytes)

    async def publish_durable(
        self,
        subject: str,
        data: bytes,
        *,
        msg_id: str,
        headers: Mapping[str, str] | None = None,
        timeout: float = api.DEADLINE_SECONDS,
    ) -> None:
        """Store a message."""
        _check_size(data)
        stream = next((s for s in self._streams.values() if any(matches(p, subject) for p in s.subjects)), None)
        if stream is None:
            raise errors.NotFound(f"no stream takes {subject}")
        now = self._clock.monotonic()
        while stream.ids and next(iter(stream.ids.values())) < now - api.DUPLICATE_SECONDS:
            stream.ids.popitem(last=False)
        if msg_id in stream.ids:
            return
        if stream.size + len(data) > stream.max_bytes:
            raise errors.Exhausted(f"the stream for {subject} is full ({stream.max_bytes} bytes)")
        stream.ids[msg_id] = now
        stream.messages.append(_Stored(subject, data, outgoing(headers)))
        stream.changed.set()

    async def consume(
        self,
        stream: str,
        durable: str,
        subject: str,
        *,
        ack_seconds: float = 30.0,
        max_unacknowledged: int = 4096,
    ) -> AsyncIterator[api.Delivery]:
        """Take messages in order; one that isn't settled in time is given again."""
        source = self._streams.get(stream)
        if source is None:
            raise errors.NotFound(f"no stream {stream}")
        while True:
            now = self._clock.monotonic()
            waiting = [m for m in source.messages if matches(subject, m.subject)]
            under_way = sum(m.taken and m.due > now for m in waiting)
            ready = next((m for m in waiting if m.due <= now), None)
            if ready is not None and under_way < max_unacknowledged:
                ready.taken, ready.count, ready.due = True, ready.count + 1, now + ack_seconds
                yield _MemoryDelivery(source, ready, self._clock)
                continue
            source.changed.clear()
            soonest = min((m.due for m in waiting), default=None)
            await _wait(source.changed, None if soonest is None else soonest - now, self._clock)


class _MemoryDelivery:
    def __init__(self, stream: _Stream, message: _Stored, clock: clocks.Clock) -> None:
        self._stream, self._message, self._clock = stream, message, clock
        self.data, self.headers, self.count = message.data, message.headers, message.count

    async def ack(self) -> None:
        if not self._message.settled:
            self._message.settled = True
            self._stream.messages.remove(self._message)
            self._stream.changed.set()

    async def nak(self, delay: float = 0.0) -> None:
        self._message.due, self._message.taken = self._clock.monotonic() + delay, False
        self._stream.changed.set()


def matches(pattern: str, subject: str) -> bool:
    """Return whether a subject fits a pattern: `*` is one token, `>` one or more at the end."""
    wanted, given = pattern.split("."), subject.split(".")
    for index, token in enumerate(wanted):
        if token == ">":
            return len(given) > index
        if index >= len(given) or token not in ("*", given[index]):
            return False
    return len(wanted) == len(given)


def _offer(listener: _Listener, message: api.Message) -> None:
    with contextlib.suppress(asyncio.QueueFull):  # a slow listener loses notices, as with NATS
        listener.pending.put_nowait(message)


def _check_size(data: bytes) -> None:
    if len(data) > api.MAX_MESSAGE:
        raise errors.ConfigError(
            f"{len(data)} bytes", field="data", remedy=f"a message has {api.MAX_MESSAGE} bytes at most"
        )


async def _wait(event: asyncio.Event, seconds: float | None, clock: clocks.Clock) -> None:
    """Return when `event` is set, or after `seconds` of the clock."""
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(event.wait())]
    if seconds is not None:
        tasks.append(asyncio.create_task(clock.sleep(seconds)))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
