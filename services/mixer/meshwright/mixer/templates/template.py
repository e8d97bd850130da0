"""What a template is: a model of its parameters, and the expressions in them with the types that they must have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from meshwright.mixer.cexl.types import ValueType
from meshwright.mixer.config.fields import Model


class Variety(Enum):
    """When instances are evaluated: to decide a request, to charge a quota, or to tell of a request afterwards."""

    CHECK = "check"
    QUOTA = "quota"
    REPORT = "report"


SCALAR = frozenset(ValueType) - {ValueType.STRING_MAP}
ANY = frozenset(ValueType)


@dataclass(frozen=True, slots=True)
class TemplateField:
    """One expression: `name` as the engine and adapters know it, `path` where it stands in the parameters."""

    name: str
    path: tuple[str | int, ...]
    source: str
    types: frozenset[ValueType]


@dataclass(frozen=True, slots=True)
class Template:
    """`fields` lists the expressions of parameters that `parameters` has accepted."""

    name: str
    variety: Variety
    parameters: type[Model]
    fields: Callable[[Any], list[TemplateField]]


def map_fields(
    name: str, alias: str, values: dict[str, str], types: frozenset[ValueType] = SCALAR
) -> list[TemplateField]:
    """The expressions of a map, named `name.KEY`, ordered by key."""
    return [TemplateField(f"{name}.{key}", (alias, key), values[key], types) for key in sorted(values)]
