"""What is wrong with an object, or probably not meant: the same shape for refusals and for warnings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from meshwright.core.config import Key


@dataclass(frozen=True, slots=True)
class Fault:
    """One sentence about one field; `index` is the object's place in the request, -1 when it isn't in it."""

    key: Key
    field: str
    message: str
    index: int = -1


@dataclass(slots=True)
class Findings:
    """What a validation found. Not empty `violations`: nothing may be committed."""

    violations: list[Fault] = field(default_factory=list)
    warnings: list[Fault] = field(default_factory=list)


class Told(Protocol):
    """A fault, a notice: whatever says something about a field."""

    @property
    def field(self) -> str:
        """The path in the document; empty: all of it."""
        ...

    @property
    def message(self) -> str:
        """A sentence."""
        ...


def sentence(told: Iterable[Told]) -> str:
    """Say faults in one line."""
    return "; ".join(f"{each.field}: {each.message}" if each.field else each.message for each in told)
