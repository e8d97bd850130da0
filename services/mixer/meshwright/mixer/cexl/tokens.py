"""Tokens of both languages: cutting a text by a language's pattern, and reading what is quoted in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from meshwright.mixer.cexl.errors import ExpressionError

ESCAPES: Mapping[str, str] = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"', "'": "'",
}  # fmt: skip
"""What a character means behind a backslash."""


@dataclass(frozen=True, slots=True)
class Token:
    """`kind` is number, name, text, operator or end; `text` is what was written (for text: what it means)."""

    kind: str
    text: str
    position: int


@dataclass(frozen=True, slots=True)
class Escapes:
    r"""A language's escapes: `pattern` has a group for each way of writing a code (hexadecimal, but for the last,
    which is octal), and then one for the characters of `plain`; `remedy` is said where one is unknown."""

    pattern: re.Pattern[str]
    plain: Mapping[str, str]
    remedy: str

    def decode(self, source: str, body: str, position: int) -> str:
        """What `body` means, which begins at `position` of `source`; ExpressionError names a bad escape."""

        def meaning(match: re.Match[str]) -> str:
            *hexadecimal, octal, character = match.groups()
            digits = next(filter(None, hexadecimal), None)
            code = int(digits, 16) if digits else int(octal, 8) if octal else None
            if code is None:
                plain = self.plain.get(character)
                if plain is not None:
                    return plain
            elif code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF:
                return chr(code)
            raise ExpressionError(source, position + match.start(), f"unknown escape `{match.group()}`", self.remedy)

        return self.pattern.sub(meaning, body)


@dataclass(frozen=True, slots=True)
class Lexer:
    """A language's tokens: `pattern` has a group for each kind, beside them `space` and `raw` (text of another form).

    `unquote` is asked what quoted text means (source, as written, position), `unreadable` for a reason and a remedy
    for a character with which nothing begins.
    """

    pattern: re.Pattern[str]
    max_characters: int
    unquote: Callable[[str, str, int], str]
    unreadable: Callable[[str], tuple[str, str]]

    def tokenize(self, source: str) -> list[Token]:
        """All tokens of `source`, the last one of kind "end"."""
        longest = self.max_characters
        if len(source) > longest:
            raise ExpressionError(source, longest, "expression too long", f"keep it to {longest} characters")
        tokens: list[Token] = []
        position = 0
        while position < len(source):
            match = self.pattern.match(source, position)
            if match is None:
                raise ExpressionError(source, position, *self.unreadable(source[position]))
            kind = match.lastgroup or ""
            if kind in ("text", "raw"):
                tokens.append(Token("text", self.unquote(source, match.group(), position), position))
            elif kind != "space":
                tokens.append(Token(kind, match.group(), position))
            position = match.end()
        tokens.append(Token("end", "", len(source)))
        return tokens
