"""What an adapter is, and what its handlers do: one protocol for each variety of templates.

A handler has the methods of the varieties that its adapter's templates are of. A method may be `async def`; a plain
`def` that only computes; or, marked with `@blocking`, a plain `def` that waits, which then runs in a thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

import pydantic

from meshwright.mixer.adapter.v1.host import Host
from meshwright.mixer.adapter.v1.report_instances import Entry
from meshwright.mixer.adapter.v1.results import Charge, CheckResult, QuotaResult
from meshwright.mixer.adapter.v1.values import Value

Instance = TypeVar("Instance", contravariant=True)
Method = TypeVar("Method", bound=Callable[..., Any])

_BLOCKING = "__meshwright_blocking__"


class CheckHandler(Protocol[Instance]):
    """Decides requests: templates of varieties CHECK and CHECK_WITH_OUTPUT."""

    def check(self, instance: Instance) -> CheckResult | Awaitable[CheckResult]:
        """Decide. Raising, or taking longer than the handler's `timeout`, counts as a failure."""
        ...


class QuotaHandler(Protocol[Instance]):
    """Grants amounts: templates of variety QUOTA."""

    def quota(self, instance: Instance, charge: Charge) -> QuotaResult | Awaitable[QuotaResult]:
        """Grant what there is, or nothing."""
        ...


class AttributeGenerator(Protocol[Instance]):
    """Makes attributes before rules are matched: templates of variety ATTRIBUTE_GENERATOR."""

    def generate(self, instance: Instance) -> Mapping[str, Value] | Awaitable[Mapping[str, Value]]:
        """Return the template's output; what isn't known is left out."""
        ...


class ReportHandler(Protocol):
    """Hands on what happened: templates of variety REPORT."""

    def report(self, batch: Sequence[Entry]) -> Awaitable[None] | None:
        """Hand the batch to the backend; return only when the backend took it.

        Raise when it didn't: none of the batch is acknowledged then, and all of it comes again after a pause, marked as
        redelivered. The call is cancelled at mixer's deadline, which counts as a failure.
        """
        ...


Handler = CheckHandler[Any] | QuotaHandler[Any] | AttributeGenerator[Any] | ReportHandler
"""An adapter at work with one handler's parameters."""


class Adapter(Protocol):
    """An adapter. Built-in ones and those of third parties take the same path."""

    @property
    def name(self) -> str:
        """What a handler's `compiledAdapter` says."""
        ...

    @property
    def templates(self) -> frozenset[str]:
        """The templates that it takes, such as listentry, quota or logentry."""
        ...

    @property
    def parameters(self) -> type[pydantic.BaseModel]:
        """The model of a handler's `params`; its faults are shown to whoever applies the configuration."""
        ...

    def open(self, parameters: Any, host: Host) -> AbstractAsyncContextManager[Any]:
        """Begin to work with accepted parameters; the context gives the `Handler`.

        It ends when the handler has left the configuration and the last question of the old one is answered.
        """
        ...


def blocking(method: Method) -> Method:
    """Mark a handler's plain method as one that waits: mixer runs it in a thread of a bounded pool."""
    setattr(method, _BLOCKING, True)
    return method


def is_blocking(method: Callable[..., Any]) -> bool:
    """Whether the method was marked with `blocking`."""
    return getattr(method, _BLOCKING, False) is True
