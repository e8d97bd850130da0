"""Mixer's expression language (CEXL): parse, check against the attribute vocabulary, evaluate.

Use `compile_expression` for all of it at once. Only pure code lives here: no configuration objects, no wire formats.
"""

from __future__ import annotations

from collections.abc import Mapping

from meshwright.mixer.cexl.checker import check
from meshwright.mixer.cexl.errors import ExpressionError
from meshwright.mixer.cexl.parser import parse
from meshwright.mixer.cexl.typed import Expression
from meshwright.mixer.cexl.types import ValueType
from meshwright.mixer.cexl.vocabulary import STANDARD

__all__ = ["STANDARD", "Expression", "ExpressionError", "ValueType", "compile_expression"]


def compile_expression(
    source: str,
    expected: ValueType | None = None,
    vocabulary: Mapping[str, ValueType] = STANDARD,
) -> Expression:
    """Parse and type-check `source`; raise ExpressionError unless it yields `expected` (None: any type)."""
    return check(source, parse(source), vocabulary, expected)
