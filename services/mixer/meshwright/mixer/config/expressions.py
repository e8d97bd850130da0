"""Expressions compiled once and kept from one configuration to the next: a change costs what changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from meshwright.mixer.cel import compile_cel
from meshwright.mixer.cexl import ValueType, compile_expression
from meshwright.mixer.cexl.typed import Expression
from meshwright.mixer.config.service_specs import ServiceSpecs

T = TypeVar("T")
_NO_SPECS = ServiceSpecs()
_Key = tuple[str, ValueType | None, str]


class Expressions:
    """Expressions of one vocabulary by text and expected type, with specs applied; equal texts give the same object."""

    def __init__(self, vocabulary: Mapping[str, ValueType], specs: ServiceSpecs = _NO_SPECS) -> None:
        self.vocabulary, self.specs = vocabulary, specs
        self._before: dict[_Key, Expression] = {}
        self._now: dict[_Key, Expression] = {}
        self._made: dict[int, tuple[Expression, Any]] = {}  # by identity: hashing a tree would walk it
        self._making: dict[int, tuple[Expression, Any]] = {}

    def __len__(self) -> int:
        """How many expressions were used since the last time that some were forgotten."""
        return len(self._now)

    def forget(self) -> None:
        """Forget what is not used from now on until the next time."""
        self._before, self._now = self._now, {}
        self._made, self._making = self._making, {}

    def compile(self, source: str, expected: ValueType | None, language: str = "CEXL") -> Expression:
        """Compile, or remember; ExpressionError when it can't be used."""
        key = (source, expected, language)
        result = self._now.get(key) or self._before.get(key)
        if result is None:
            compiler = compile_cel if language == "CEL" else compile_expression
            result = self.specs.applied(compiler(source, expected, self.vocabulary))
        self._now[key] = result
        return result

    def once(self, expression: Expression, make: Callable[[Expression], T]) -> T:
        """What `make` makes of an expression that `compile` gave: made once. An expression has one maker."""
        known = self._making.get(id(expression)) or self._made.get(id(expression))
        if known is None:
            known = (expression, make(expression))
        self._making[id(expression)] = known
        made: T = known[1]
        return made
