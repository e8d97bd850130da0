"""Errors of the manager's client side.

ConfigError (core.errors)
└── Refused   the manager found faults in a request and applied nothing of it
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from meshwright.core import errors
from meshwright.core.config import Key


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault or a warning; `source` is the document it is about (``file.yaml#2``), when it was in the request."""

    key: Key
    field: str
    message: str
    source: str = ""

    def __str__(self) -> str:
        place = f"{self.source}: " if self.source else ""
        field = f"{self.field}: " if self.field else ""
        return f"{place}{self.key}: {field}{self.message}"


class Refused(errors.ConfigError):
    """Nothing was applied; `problems` says why."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, problems)))
