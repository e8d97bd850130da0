"""An adapter at work without mixer: what goes in and comes out is checked as mixer would check it."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from meshwright.mixer.adapter.v1 import templates
from meshwright.mixer.adapter.v1.interface import Adapter
from meshwright.mixer.adapter.v1.report_instances import Entry
from meshwright.mixer.adapter.v1.results import Charge, CheckResult, QuotaResult
from meshwright.mixer.adapter.v1.values import Value
from meshwright.mixer.plugintest.recording import RecordingHost

T = TypeVar("T")


class Running:
    """The handler, with every method awaited, plain ones too."""

    def __init__(self, adapter: Adapter, handler: Any) -> None:
        self._adapter, self._handler = adapter, handler

    async def check(self, instance: Any) -> CheckResult:
        """Have it decide."""
        self._takes(instance)
        return self._is(await _awaited(self._handler.check(instance)), CheckResult)

    async def quota(self, instance: Any, charge: Charge) -> QuotaResult:
        """Have it grant."""
        self._takes(instance)
        return self._is(await _awaited(self._handler.quota(instance, charge)), QuotaResult)

    async def generate(self, instance: Any) -> Mapping[str, Value]:
        """Have it make attributes."""
        self._takes(instance)
        result: Mapping[str, Value] = await _awaited(self._handler.generate(instance))
        assert isinstance(result, Mapping), f"adapter {self._adapter.name} returned {result!r}: mixer wants a mapping"
        return result

    async def report(self, batch: Sequence[Entry]) -> None:
        """Hand it a batch."""
        for entry in batch:
            self._takes(entry)
        await _awaited(self._handler.report(batch))

    def _takes(self, instance: Any) -> None:
        template = templates.name_of(instance)
        if template not in self._adapter.templates:
            raise AssertionError(f"adapter {self._adapter.name} doesn't take template {template}")

    def _is(self, result: Any, kind: type[T]) -> T:
        assert isinstance(result, kind), (
            f"adapter {self._adapter.name} returned {result!r}: mixer wants a {kind.__name__}"
        )
        return result


@asynccontextmanager
async def running(
    adapter: Adapter, parameters: Mapping[str, Any] | None = None, host: RecordingHost | None = None
) -> AsyncIterator[Running]:
    """The adapter at work with `parameters` as they would stand in YAML."""
    accepted = adapter.parameters.model_validate(parameters or {})
    lent = host or RecordingHost()
    try:
        async with adapter.open(accepted, lent) as handler:
            yield Running(adapter, handler)
    finally:
        await lent.close()


async def _awaited(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result
