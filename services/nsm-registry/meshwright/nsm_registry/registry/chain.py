"""The chain that a registration passes: elements as in `meshwright.nsm.chain`, over objects instead of connections."""

from __future__ import annotations

import enum
import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from opentelemetry import trace

from meshwright.core.clock import Clock
from meshwright.nsm.chain import Caller, Receive, nothing_to_receive
from meshwright.nsm.registry_path import RegistryPath

_tracer = trace.get_tracer("meshwright.nsm_registry")


class Operation(enum.Enum):
    """What is done with the object."""

    REGISTER = "register"
    UNREGISTER = "unregister"


@dataclass(slots=True)
class Exchange:
    """One registration as it passes the chain."""

    operation: Operation
    clock: Clock
    caller: Caller
    token: str
    sent_path: str | None  # the metadata as it came; None: there was none
    receive: Receive = nothing_to_receive
    path: RegistryPath = field(default_factory=RegistryPath)  # with this hop's token; set by the path element
    owner: str = ""  # SPIFFE ID of the first hop
    latest: datetime | None = None  # the tokens allow no longer registration than this

    @property
    def registering(self) -> bool:
        """Whether this is a Register."""
        return self.operation is Operation.REGISTER


Proceed = Callable[[Any, Exchange], Awaitable[Any]]


class Element(Protocol):
    """One link; the message is a NetworkService or a NetworkServiceEndpoint, and its own copy to change."""

    async def __call__(self, message: Any, exchange: Exchange, proceed: Proceed) -> Any:
        """Do this link's part and `return await proceed(message, exchange)`."""
        ...


class Chain:
    """Elements in order."""

    def __init__(self, *elements: Element) -> None:
        self._elements = elements
        self._names = [getattr(element, "__name__", type(element).__name__) for element in elements]

    async def __call__(self, message: Any, exchange: Exchange) -> Any:
        """Run the chain and return the object as it is registered."""
        return await self._from(0, message, exchange)

    async def _from(self, position: int, message: Any, exchange: Exchange) -> Any:
        if position == len(self._elements):
            return message
        with _tracer.start_as_current_span(f"registry {exchange.operation.value} {self._names[position]}"):
            return await self._elements[position](message, exchange, functools.partial(self._from, position + 1))
