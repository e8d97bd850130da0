"""The three protocols of an adapter: what it is, what it does, and what mixer lends it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import pydantic

from meshwright.mixer.adapter.v1.record import Entry


class Handler(Protocol):
    """An adapter at work with one handler's parameters."""

    async def handle(self, batch: Sequence[Entry]) -> None:
        """Hand the batch to the backend; return only when the backend took it.

        Raise when it didn't: none of the batch is acknowledged then, and all of it comes again after a pause, marked as
        redelivered. The call is cancelled at mixer's deadline, which counts as a failure.
        """
        ...


class Host(Protocol):
    """What mixer lends to an adapter."""

    @property
    def otlp(self) -> str | None:
        """The collector that mixer was started with (`--otlp`, host:port), for adapters that have none of their own."""
        ...

    @property
    def instance(self) -> str:
        """The name of this mixer replica, so that what two replicas export can be told apart."""
        ...

    def channel(self, target: str, peer: str | None) -> Any:
        """A gRPC channel for generated stubs, with mixer's identity; `peer` is the SPIFFE ID that must answer.

        `peer=None` means the mesh's own collector. Mixer closes the channel.
        """
        ...


class Adapter(Protocol):
    """An adapter. Built-in ones and those of third parties take the same path."""

    @property
    def name(self) -> str:
        """What a handler's `compiledAdapter` says."""
        ...

    @property
    def templates(self) -> frozenset[str]:
        """The report templates that it takes: logentry, metric."""
        ...

    @property
    def parameters(self) -> type[pydantic.BaseModel]:
        """The model of a handler's `params`; its faults are shown to whoever applies the configuration."""
        ...

    def open(self, parameters: Any, host: Host) -> AbstractAsyncContextManager[Handler]:
        """Begin to work with accepted parameters; the context ends when the handler leaves the configuration."""
        ...
