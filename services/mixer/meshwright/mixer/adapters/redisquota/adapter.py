"""The adapter object and its handler.

One decision to know: a charge is one call of one script, with a deadline and without a second attempt; when Redis gives
no answer the handler's failure policy decides, as for every adapter.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pydantic

from meshwright.mixer.adapter.v1 import Charge, Host, Quota, QuotaResult
from meshwright.mixer.adapters.instance_names import lookup
from meshwright.mixer.adapters.plain import text
from meshwright.mixer.adapters.redisquota import parameters as models
from meshwright.mixer.adapters.redisquota.script import CHARGE

_SECONDS = 2.0
"""For a call, and for a connection; the handler's `timeout` is shorter."""
_DEDUPLICATION_MS = 1000
_MS = 1_000_000  # nanoseconds
_PREFIX = "meshwright:quota:"


class QuotaHandler:
    """Charges quota instances."""

    def __init__(self, client: Any, quotas: Mapping[str, models.Quota]) -> None:
        self._quotas = quotas
        self._charge = client.register_script(CHARGE)

    async def quota(self, instance: Quota, charge: Charge) -> QuotaResult:
        """Charge the cell of the instance's dimensions."""
        quota = lookup(self._quotas, instance.instance)
        if quota is None:
            raise LookupError(f"{instance.instance}: the handler's `quotas` don't name it")
        dimensions = {name: text(value) for name, value in sorted(instance.dimensions.items())}
        limit = _limit(quota, dimensions)
        rolls = quota.rate_limit_algorithm == "ROLLING_WINDOW"
        window = quota.valid_duration // _MS
        bucket = quota.bucket_duration // _MS if rolls else window
        cell = _cell(instance.instance, limit, window, bucket, dimensions)
        granted, milliseconds = await self._charge(
            keys=[cell, f"{cell}:{hashlib.sha256(charge.deduplication_id.encode()).hexdigest()[:32]}"],
            args=[
                charge.amount, limit, window, bucket, int(rolls), int(charge.best_effort),
                _DEDUPLICATION_MS if charge.deduplication_id else 0,
            ],
        )  # fmt: skip
        return QuotaResult(granted=int(granted), valid_duration=timedelta(milliseconds=int(milliseconds)))


def _password(file: str) -> str | None:
    return Path(file).read_text().strip() if file else None


def _limit(quota: models.Quota, dimensions: Mapping[str, str]) -> int:
    for override in quota.overrides:
        if override.dimensions.items() <= dimensions.items():
            return override.max_amount
    return quota.max_amount


def _cell(instance: str, limit: int, window: int, bucket: int, dimensions: Mapping[str, str]) -> str:
    """A key of fixed length; in braces, so that a cluster keeps a cell and its deduplication ids together."""
    parts = [instance, str(limit), str(window), str(bucket), *(part for each in dimensions.items() for part in each)]
    whole = b"".join(len(part.encode()).to_bytes(4, "little") + part.encode() for part in parts)
    return f"{_PREFIX}{{{hashlib.sha256(whole).hexdigest()[:40]}}}"


class RedisQuotaAdapter:
    """The adapter as entry points name it."""

    name = "redisquota"
    templates = frozenset({"quota"})
    parameters: type[pydantic.BaseModel] = models.Parameters

    @asynccontextmanager
    async def open(self, parameters: models.Parameters, host: Host) -> AsyncIterator[QuotaHandler]:
        """Connect when the first charge comes: a server that is away is no reason not to open."""
        from redis import asyncio as redis

        password = await asyncio.to_thread(_password, parameters.password_file)
        pool = redis.BlockingConnectionPool.from_url(
            parameters.url,
            password=password,
            max_connections=parameters.connection_pool_size,
            timeout=_SECONDS,
            socket_timeout=_SECONDS,
            socket_connect_timeout=_SECONDS,
        )
        client = redis.Redis.from_pool(pool)
        try:
            yield QuotaHandler(client, {quota.name: quota for quota in parameters.quotas})
        finally:
            await client.aclose()


ADAPTER = RedisQuotaAdapter()
