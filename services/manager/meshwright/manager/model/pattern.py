"""Regular expressions that proxies take: RE2's language, of a size that they compile.

One decision to know: a proxy refuses a whole listener or all its routes for one bad expression, so an expression is
judged where it is written. Python's parser reads what both languages have in common; what RE2 lacks (looking around,
references back) and what only Python has is refused, and the program's size is estimated from above.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Annotated, Any

from pydantic import AfterValidator

MAX_LENGTH = 1024  # characters
MAX_REPEATS = 1000  # RE2's own limit
MAX_SIZE = 900  # instructions; proxies are started with a limit of 1,000 (`xds.bootstrap`)

_CLASS = 12  # instructions of a class over all of UTF-8
_PYTHONS = re.compile(r"(?<!\\)(?:\\\\)*(\\[ZNuU]|\(\?P=|\(\?#|\(\?[aiLmsux]*[aLux])")
_LACKING = {
    sre.ASSERT: "looking ahead or behind",
    sre.ASSERT_NOT: "looking ahead or behind",
    sre.GROUPREF: "references to groups",
    sre.GROUPREF_EXISTS: "conditions on groups",
}
for _name in ("ATOMIC_GROUP", "POSSESSIVE_REPEAT"):  # Python 3.11 and later
    if hasattr(sre, _name):
        _LACKING[getattr(sre, _name)] = "possessive repetition"


def regex(text: str) -> str:
    """Accept an RE2 expression that a proxy compiles; raise ValueError with the reason."""
    if len(text) > MAX_LENGTH:
        raise ValueError(f"the expression has {len(text)} characters: at most {MAX_LENGTH} are taken")
    if found := _PYTHONS.search(text):
        raise ValueError(f"{text!r} isn't an RE2 expression: {found[1]!r} isn't known there")
    try:
        with warnings.catch_warnings():  # of [[:alpha:]], which RE2 has and Python may have one day
            warnings.simplefilter("ignore")
            size = _size(parser.parse(text))
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{text!r} isn't an RE2 expression: {error or 'it is nested too deeply'}") from None
    if size > MAX_SIZE:
        raise ValueError(f"{text!r} is too large for proxies ({size} steps of {MAX_SIZE}): use fewer repetitions")
    return text


Regex = Annotated[str, AfterValidator(regex)]


def _size(tree: Iterable[tuple[Any, Any]]) -> int:
    return sum(_instruction(operation, argument) for operation, argument in tree)


def _instruction(operation: Any, argument: Any) -> int:
    if operation in _LACKING:
        raise re.error(f"RE2 has no {_LACKING[operation]}")
    if operation is sre.LITERAL:
        return len(chr(argument).encode(errors="replace"))
    if operation is sre.BRANCH:
        return sum(_size(branch) + 2 for branch in argument[1])
    if operation is sre.SUBPATTERN:
        return _size(argument[3]) + 2
    if operation in (sre.MAX_REPEAT, sre.MIN_REPEAT):
        least, most, inner = argument
        for bound in (least, most):
            if bound is not sre.MAXREPEAT and bound > MAX_REPEATS:
                raise re.error(f"RE2 repeats {MAX_REPEATS} times at most")
        times = max(least, 1) + 1 if most is sre.MAXREPEAT else max(most, 1)
        return int(times) * (_size(inner) + 1) + 1
    if operation is sre.IN:
        return _CLASS + 2 * len(argument)
    return _CLASS if operation in (sre.ANY, sre.NOT_LITERAL, sre.CATEGORY) else 1
