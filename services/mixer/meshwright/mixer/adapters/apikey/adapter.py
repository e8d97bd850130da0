"""The adapter object and its handler."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated

import pydantic
from pydantic import Field, model_validator

from meshwright.mixer.adapter.v1 import ApiKey, CheckResult, Clock, Code, Host
from meshwright.mixer.adapters.apikey.keys import Key, Keys
from meshwright.mixer.config.fields import Model

_VALID = timedelta(minutes=1)


class Parameters(Model):
    """The keys that are known."""

    keys: Annotated[list[Key], Field(min_length=1, max_length=100_000)]

    @model_validator(mode="after")
    def _once(self) -> Parameters:
        digests = [key.sha256 for key in self.keys]
        if len(set(digests)) != len(digests):
            raise ValueError("a digest stands twice: keep one entry for each key")
        return self


class KeyHandler:
    """Decides apikey instances."""

    def __init__(self, keys: Keys, clock: Clock) -> None:
        self._keys, self._clock = keys, clock

    def check(self, instance: ApiKey) -> CheckResult:
        """UNAUTHENTICATED without a known key of today, PERMISSION_DENIED when it is for something else."""
        if not instance.api_key:
            return CheckResult.deny("the request has no API key", Code.UNAUTHENTICATED)
        key = self._keys.find(instance.api_key)
        now = self._clock.now()
        if key is None or key.has_ended(now):
            return CheckResult.deny("the API key isn't known, or not any more", Code.UNAUTHENTICATED)
        if not key.is_good_for(instance.api, instance.api_operation):
            return CheckResult.deny(f"the API key of {key.name} isn't for this")
        left = _VALID if key.not_after is None else min(_VALID, key.not_after - now)
        return CheckResult(valid_duration=left, valid_use_count=-1)


class ApiKeyAdapter:
    """The adapter as entry points name it."""

    name = "apikey"
    templates = frozenset({"apikey"})
    parameters: type[pydantic.BaseModel] = Parameters

    @asynccontextmanager
    async def open(self, parameters: Parameters, host: Host) -> AsyncIterator[KeyHandler]:
        """Order the keys by digest."""
        yield KeyHandler(Keys(parameters.keys), host.clock)


ADAPTER = ApiKeyAdapter()
