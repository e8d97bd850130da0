"""Adapter `noop`: takes every template and does nothing, so that a rule can be tried for its cost alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pydantic

from meshwright.mixer.adapter.v1 import Charge, CheckResult, Entry, Host, QuotaResult, Value
from meshwright.mixer.config.fields import Model

_LONG = timedelta(minutes=1)


class Parameters(Model):
    """None."""


class NoopHandler:
    """Lets everything pass and takes everything."""

    def check(self, instance: Any) -> CheckResult:
        """Pass."""
        return CheckResult(valid_duration=_LONG, valid_use_count=-1)

    def quota(self, instance: Any, charge: Charge) -> QuotaResult:
        """Grant what is asked for."""
        return QuotaResult(granted=charge.amount, valid_duration=_LONG)

    def generate(self, instance: Any) -> Mapping[str, Value]:
        """Make no attributes."""
        return {}

    def report(self, batch: Sequence[Entry]) -> None:
        """Take the batch."""


class NoopAdapter:
    """The adapter as entry points name it."""

    name = "noop"
    templates = frozenset(
        {
            "checknothing", "listentry", "authorization", "apikey", "quota", "kubernetes",
            "logentry", "metric", "tracespan", "edge", "reportnothing",
        }
    )  # fmt: skip
    parameters: type[pydantic.BaseModel] = Parameters

    @asynccontextmanager
    async def open(self, parameters: Parameters, host: Host) -> AsyncIterator[NoopHandler]:
        """Nothing is opened."""
        yield NoopHandler()


ADAPTER = NoopAdapter()
