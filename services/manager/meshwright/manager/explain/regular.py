"""Whether a regular expression fits the whole of a text, in bounded time.

One decision to know: Python's `re` goes back and forth, and one expression can keep it busy for years. This follows all
ways at once, as RE2 does in the proxies: a node of the expression turns the places where it may begin into those where
it may end. What takes more than `STEPS` is told as unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

STEPS = 500_000

_CLASSES = {
    sre.CATEGORY_DIGIT: "0123456789",
    sre.CATEGORY_SPACE: "\t\n\f\r ",
    sre.CATEGORY_WORD: "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz",
}
_OPPOSITES = {
    sre.CATEGORY_NOT_DIGIT: sre.CATEGORY_DIGIT,
    sre.CATEGORY_NOT_SPACE: sre.CATEGORY_SPACE,
    sre.CATEGORY_NOT_WORD: sre.CATEGORY_WORD,
}


def fits(expression: str, text: str, *, ignore_case: bool = False) -> bool | None:
    """Return whether the whole text fits; None when that can't be told."""
    try:
        tree = parser.parse(expression)
        flags = tree.state.flags | (re.IGNORECASE if ignore_case else 0)
        return len(text) in _Run(text).sequence(tree, {0}, flags)
    except (_TooLongError, re.error, RecursionError, OverflowError):
        return None


class _TooLongError(Exception):
    """It takes more steps than are taken, or has something that isn't known here."""


class _Run:
    def __init__(self, text: str) -> None:
        self._text, self._steps = text, 0

    def sequence(self, nodes: Iterable[Any], places: set[int], flags: int) -> set[int]:
        for operation, argument in nodes:
            if not places:
                break
            places = self._node(operation, argument, places, flags)
        return places

    def _node(self, operation: Any, argument: Any, places: set[int], flags: int) -> set[int]:
        self._steps += len(places)
        if self._steps > STEPS:
            raise _TooLongError
        if operation is sre.SUBPATTERN:
            _, add, remove, inner = argument
            return self.sequence(inner, places, (flags | add) & ~remove)
        if operation is sre.BRANCH:
            return set().union(*(self.sequence(each, places, flags) for each in argument[1]))
        if operation in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            least, most, inner = argument
            return self._repeat(least, most, inner, places, flags)
        if operation is sre.AT:
            return {place for place in places if self._at(argument, place, flags)}
        text = self._text
        return {place + 1 for place in places if place < len(text) and _takes(operation, argument, text[place], flags)}

    def _repeat(self, least: int, most: int, inner: Any, places: set[int], flags: int) -> set[int]:
        for _ in range(least):
            self._steps += 1
            places = self.sequence(inner, places, flags)
            if not places:
                return places
        found, new, count = set(places), places, least
        while new and count < most:
            new = self.sequence(inner, new, flags) - found
            found |= new
            count += 1
        return found

    def _at(self, where: Any, place: int, flags: int) -> bool:
        text = self._text
        many = bool(flags & re.MULTILINE)
        if where in (sre.AT_BEGINNING, sre.AT_BEGINNING_STRING):
            return place == 0 or (many and where is sre.AT_BEGINNING and text[place - 1] == "\n")
        if where in (sre.AT_END, sre.AT_END_STRING):
            return place == len(text) or (many and where is sre.AT_END and text[place] == "\n")
        if where in (sre.AT_BOUNDARY, sre.AT_NON_BOUNDARY):
            sides = [0 <= at < len(text) and text[at] in _CLASSES[sre.CATEGORY_WORD] for at in (place - 1, place)]
            return (sides[0] != sides[1]) is (where is sre.AT_BOUNDARY)
        raise _TooLongError


def _takes(operation: Any, argument: Any, character: str, flags: int) -> bool:
    forms = {character, character.lower(), character.upper()} if flags & re.IGNORECASE else {character}
    if operation is sre.LITERAL:
        return chr(argument) in forms
    if operation is sre.NOT_LITERAL:
        return chr(argument) not in forms
    if operation is sre.ANY:
        return character != "\n" or bool(flags & re.DOTALL)
    if operation is sre.IN:
        negated = argument[0][0] is sre.NEGATE
        return any(_in(each, form) for each in argument for form in forms) is not negated
    raise _TooLongError


def _in(each: tuple[Any, Any], character: str) -> bool:
    operation, argument = each
    if operation is sre.NEGATE:
        return False
    if operation is sre.LITERAL:
        return chr(argument) == character
    if operation is sre.RANGE:
        return len(character) == 1 and argument[0] <= ord(character) <= argument[1]
    if operation is sre.CATEGORY:
        if argument in _OPPOSITES:
            return character not in _CLASSES[_OPPOSITES[argument]]
        return character in _CLASSES[argument]
    raise _TooLongError
