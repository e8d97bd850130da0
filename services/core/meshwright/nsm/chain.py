"""The chain of responsibility: every program of the network service API is one ordered list of elements.

An element is an async function that gets the message, the exchange it belongs to, and the rest of the chain. What it
does before calling the rest is the way in, what it does afterwards the way out. Request and Close pass the same
elements, told apart by `Exchange.operation`, because most elements (path, tokens, monitor) treat both alike.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from cryptography.hazmat.primitives.asymmetric import ec
from opentelemetry import trace

from meshwright.core import errors
from meshwright.core.clock import Clock
from meshwright.nsm.descriptors import Descriptor, Inode
from meshwright.nsm.wire import Connection, NetworkServiceRequest

if TYPE_CHECKING:
    from meshwright.nsm.connections import ConnectionState

_tracer = trace.get_tracer("meshwright.nsm")


class Operation(enum.Enum):
    """What the caller wants of the connection."""

    REQUEST = "request"  # the first time, or to refresh it
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who called, as proved by mutual TLS; without TLS both are empty."""

    spiffe_id: str = ""
    key: ec.EllipticCurvePublicKey | None = None


Receive = Callable[[Inode, float], Awaitable[Descriptor]]
"""Waits for the descriptor of an inode that travels beside the message; the float is a timeout in seconds."""


async def nothing_to_receive(inode: Inode, timeout: float) -> Descriptor:
    """Stand for a transport that carries no descriptors."""
    raise errors.ConfigError(
        f"no descriptor of {inode.url} came with the message",
        field="mechanism.parameters[inodeURL]",
        remedy="call over the Unix socket and pass the descriptor",
    )


class NextHop(Protocol):
    """A hop that this one calls; `meshwright.nsm.peer.Peer` is the one on the wire."""

    @property
    def name(self) -> str:
        """The hop's name, by which a connection remembers it."""
        ...

    async def request(
        self, request: NetworkServiceRequest, *, timeout: float, descriptors: list[Descriptor]
    ) -> tuple[Connection, Descriptor | None]:
        """Ask for a connection; `descriptors` go beside the message and stay the caller's.

        With the answer comes the descriptor that its mechanism names, if one was sent; the caller owns it.
        """
        ...

    async def close(self, connection: Connection, *, timeout: float, descriptors: list[Descriptor]) -> None:
        """Close a connection."""
        ...


@dataclass(slots=True)
class Exchange:
    """One call as it passes a chain. `caller` is None when this hop acts by itself: expiry, undo, resync."""

    operation: Operation
    clock: Clock
    deadline: float  # of the clock's monotonic time
    caller: Caller | None = None
    token: str = ""
    receive: Receive = nothing_to_receive
    caller_index: int = 0  # in the path; set by the path element
    expires: datetime | None = None  # of the caller's token; set by the tokens element
    next_hops: list[NextHop] = field(default_factory=list)  # best first; set by the element that chooses
    answer: list[Descriptor] = field(default_factory=list)  # to go beside the answer; the connection owns them
    opened: ConnectionState | None = None  # set by begin

    @property
    def closing(self) -> bool:
        """Whether this is a Close."""
        return self.operation is Operation.CLOSE

    @property
    def state(self) -> ConnectionState:
        """What this hop knows about the connection; there is one in every element after begin."""
        assert self.opened is not None, "the begin element comes first"
        return self.opened

    def remaining(self) -> float:
        """Seconds that are left; raises DeadlineExceeded when there are none."""
        left = self.deadline - self.clock.monotonic()
        if left <= 0:
            raise errors.DeadlineExceeded("the call's deadline passed at this hop (give it more time)")
        return left


Proceed = Callable[[NetworkServiceRequest, Exchange], Awaitable[Connection]]


class Element(Protocol):
    """One link of a chain; a function or an object. Its answer to a Close is not looked at."""

    async def __call__(self, request: NetworkServiceRequest, exchange: Exchange, proceed: Proceed) -> Connection:
        """Do this link's part and `return await proceed(request, exchange)`."""
        ...


class Chain:
    """Elements in order; itself callable, and what a servicer calls."""

    def __init__(self, *elements: Element) -> None:
        self._elements = elements
        self._names = [getattr(element, "__name__", type(element).__name__) for element in elements]

    async def __call__(self, request: NetworkServiceRequest, exchange: Exchange) -> Connection:
        """Run the chain; a span tells how long each element took."""
        return await self._from(0, request, exchange)

    async def _from(self, position: int, request: NetworkServiceRequest, exchange: Exchange) -> Connection:
        if position == len(self._elements):
            return request.connection
        with _tracer.start_as_current_span(f"nsm {exchange.operation.value} {self._names[position]}"):
            return await self._elements[position](request, exchange, functools.partial(self._from, position + 1))
