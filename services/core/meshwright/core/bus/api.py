"""What a bus is: subjects with listeners, and durable streams whose messages are settled one by one.

One decision to know: a durable stream is a work queue. It refuses new messages when it is full instead of dropping old
ones, and gives a message again until somebody acknowledges it; `Delivery.count` says how often it was given.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

DEADLINE_SECONDS = 5.0  # of a call whose caller gave none
MAX_MESSAGE = 1024 * 1024  # bytes; NATS' own limit
PENDING_MESSAGES = 4096  # a listener that is slower than its subject loses what is beyond
DUPLICATE_SECONDS = 120.0  # how long a stream remembers message ids


@dataclass(frozen=True, slots=True)
class Message:
    """A notice: heard now or never."""

    subject: str
    data: bytes
    headers: Mapping[str, str]


class Delivery(Protocol):
    """A message of a durable stream, given to one consumer."""

    @property
    def data(self) -> bytes:
        """The message's bytes."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The message's headers, trace context among them."""
        ...

    @property
    def count(self) -> int:
        """How often it was given, this time included: above 1 it may be a duplicate."""
        ...

    async def ack(self) -> None:
        """Say that it is taken: it leaves the stream."""
        ...

    async def nak(self, delay: float = 0.0) -> None:
        """Give it back, to come again after `delay` seconds."""
        ...


class Bus(Protocol):
    """Calls raise Unavailable when the server is away, DeadlineExceeded when it doesn't answer in time."""

    async def publish(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Tell whoever listens now."""
        ...

    def subscribe(self, subject: str, queue: str | None = None) -> AsyncIterator[Message]:
        """Listen; members of the same `queue` share the messages. `*` and `>` are wildcards as in NATS."""
        ...

    async def ensure_stream(self, name: str, subjects: Sequence[str], *, max_bytes: int) -> None:
        """Create a durable work queue, or bring an existing one to these limits."""
        ...

    async def publish_durable(
        self,
        subject: str,
        data: bytes,
        *,
        msg_id: str,
        headers: Mapping[str, str] | None = None,
        timeout: float = DEADLINE_SECONDS,
    ) -> None:
        """Return when the stream has stored it; the same `msg_id` again within two minutes is stored once.

        Raises Exhausted when the stream is full, NotFound when no stream takes the subject.
        """
        ...

    def consume(
        self,
        stream: str,
        durable: str,
        subject: str,
        *,
        ack_seconds: float = 30.0,
        max_unacknowledged: int = 4096,
    ) -> AsyncIterator[Delivery]:
        """Take messages from a stream; consumers with the same `durable` name share them.

        A message that isn't settled in `ack_seconds` is given to another consumer. Outages of the server are waited
        out.
        """
        ...
