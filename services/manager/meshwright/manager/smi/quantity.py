"""Kubernetes quantities (``1``, ``500m``, ``1.5``, ``2Ki``, ``1e3``) as weights.

The ratio is what a weight says, so quantities become whole numbers by one common factor: 1 if all are whole, 1,000 if
that is enough, else the least that is. Sources: k8s.io/apimachinery resource.Quantity; SMI §Traffic Split.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from math import gcd, lcm
from typing import Any

from meshwright.core import errors

MAX_WEIGHT = 1_000_000  # 64 backends of it still fit the proxy's 32-bit sum

_QUANTITY = re.compile(
    r"\+?(\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d{1,2}))?", re.ASCII
)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


def amount(value: Any) -> Fraction:
    """Return how much a quantity is; raise ConfigError for what is none, or below 0."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63:
        return Fraction(value)
    found = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise errors.ConfigError(f"{str(value)[:60]!r} isn't a quantity: write a number such as 10, 1.5 or 500m")
    number, suffix, exponent = found.groups()
    if exponent:
        return Fraction(number) * Fraction(10) ** int(exponent)
    if suffix in _BINARY:
        return Fraction(number) * (1 << _BINARY[suffix])
    return Fraction(number) * Fraction(10) ** _DECIMAL.get(suffix, 0)


def weights(values: Sequence[Any]) -> list[int]:
    """Return whole weights in the same ratios; raise ConfigError for ratios that no weights up to MAX_WEIGHT hold."""
    amounts = [amount(value) for value in values]
    factor = lcm(*(each.denominator for each in amounts)) if amounts else 1
    if factor > 1 and 1000 % factor == 0:
        factor = 1000
    whole = [int(each * factor) for each in amounts]
    if max(whole, default=0) > MAX_WEIGHT:
        common = gcd(*whole)
        whole = [each // common for each in whole]
    if max(whole, default=0) > MAX_WEIGHT:
        raise errors.ConfigError(
            f"weights in this ratio are more than 1 : {MAX_WEIGHT} apart: bring them nearer together"
        )
    return whole
