"""CEL, Google's Common Expression Language, as far as attributes need it; it compiles to what CEXL compiles to.

One decision to know: CEL's rules on what is missing hold. Reading an absent attribute or key is an error; an error
beside a decided `&&` or `||` doesn't matter; a condition that ends on one doesn't hold; `has()` and `in` ask without
reading. No lists but those after `in`, no macros, no maps or messages made on the way.
"""

from __future__ import annotations

from collections.abc import Mapping

from meshwright.mixer.cel.checker import check
from meshwright.mixer.cel.parser import parse
from meshwright.mixer.cexl.typed import Expression
from meshwright.mixer.cexl.types import ValueType
from meshwright.mixer.cexl.vocabulary import STANDARD

__all__ = ["compile_cel"]


def compile_cel(
    source: str, expected: ValueType | None = None, vocabulary: Mapping[str, ValueType] = STANDARD
) -> Expression:
    """Parse and type-check `source`; raise ExpressionError unless it yields `expected` (None: any type)."""
    return check(source, parse(source), vocabulary, expected)
