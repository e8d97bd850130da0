"""Known keys, by digest: neither configuration nor memory holds a key itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, Field, field_validator

from meshwright.mixer.config.fields import Model

Patterns = Annotated[list[Annotated[str, Field(min_length=1, max_length=512)]], Field(max_length=1000)]


class Key(Model):
    """A key: who has it, what it is good for, and until when.

    `sha256` is its digest, hexadecimal. `apis` and `operations` are names, or beginnings that end in `*`; none given:
    all.
    """

    name: Annotated[str, Field(min_length=1, max_length=253)]
    sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")]
    apis: Patterns = Field(default_factory=list)
    operations: Patterns = Field(default_factory=list)
    not_after: Annotated[AwareDatetime | None, Field(strict=False)] = None

    @field_validator("sha256")
    @classmethod
    def _small(cls, value: str) -> str:
        return value.lower()

    def is_good_for(self, api: str, operation: str) -> bool:
        """Whether the key was given for this."""
        return _fits(self.apis, api) and _fits(self.operations, operation)

    def has_ended(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.not_after is not None and now >= self.not_after


class Keys:
    """Finds keys: by their digest, so that how long it takes tells nothing about a key."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._by_digest = {key.sha256: key for key in keys}

    def find(self, presented: str) -> Key | None:
        """The key that was presented, if it is known."""
        return self._by_digest.get(hashlib.sha256(presented.encode()).hexdigest())


def _fits(patterns: list[str], text: str) -> bool:
    return not patterns or any(
        text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern for pattern in patterns
    )
