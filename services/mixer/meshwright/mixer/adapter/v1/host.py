"""What mixer lends to each handler: all of it ends with the handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Protocol


class Logger(Protocol):
    """Structured logging: a constant event, and fields. Mixer adds the handler and the adapter."""

    def debug(self, event: str, **fields: Any) -> Any:
        """For whoever looks closely."""
        ...

    def info(self, event: str, **fields: Any) -> Any:
        """A change of state."""
        ...

    def warning(self, event: str, **fields: Any) -> Any:
        """Something that somebody should look at."""
        ...

    def error(self, event: str, **fields: Any) -> Any:
        """Something that somebody must mend."""
        ...


class Counter(Protocol):
    """Counts up."""

    def inc(self, amount: float = 1) -> None:
        """Add."""
        ...


class Gauge(Protocol):
    """A level."""

    def set(self, value: float) -> None:
        """Replace."""
        ...


class Histogram(Protocol):
    """A distribution."""

    def observe(self, amount: float) -> None:
        """Add one observation."""
        ...


class Metrics(Protocol):
    """Metrics named `meshwright_mixer_adapter_ADAPTER_NAME`, with the label `handler` and those given.

    Asking again for the same name gives the same metric, so that all handlers of an adapter share it. Label values are
    bounded: beyond a thousand combinations all others count as `other`.
    """

    def counter(self, name: str, documentation: str, **labels: str) -> Counter:
        """The counter of these labels' values."""
        ...

    def gauge(self, name: str, documentation: str, **labels: str) -> Gauge:
        """The gauge of these labels' values."""
        ...

    def histogram(self, name: str, documentation: str, *, buckets: Sequence[float] = (), **labels: str) -> Histogram:
        """The histogram of these labels' values; `buckets` are upper bounds, by default those of a duration in s."""
        ...


class Clock(Protocol):
    """Wall time for what others must agree on, monotonic time for how long something takes."""

    def now(self) -> datetime:
        """Return the wall time, in UTC and aware of it."""
        ...

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of this clock's monotonic time."""
        ...


class Host(Protocol):
    """What mixer lends to a handler."""

    @property
    def handler(self) -> str:
        """The handler's name in configuration, `name.namespace`."""
        ...

    @property
    def replica(self) -> str:
        """The name of this mixer replica, so that what two replicas export can be told apart."""
        ...

    @property
    def otlp(self) -> str | None:
        """The collector that mixer was started with (`--otlp`, host:port), for adapters that have none of their own."""
        ...

    @property
    def logger(self) -> Logger:
        """A logger that names the handler."""
        ...

    @property
    def metrics(self) -> Metrics:
        """Metrics of the adapter's own, on mixer's `/metrics`."""
        ...

    @property
    def clock(self) -> Clock:
        """Take the time from here, so that tests can move it."""
        ...

    def background(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` beside the handler until the handler closes; when it raises, again after a pause, and logged."""
        ...

    def channel(self, target: str, peer: str | None) -> Any:
        """A gRPC channel for generated stubs, with mixer's identity; `peer` is the SPIFFE ID that must answer.

        `peer=None` means the mesh's own collector. It closes with the handler.
        """
        ...
