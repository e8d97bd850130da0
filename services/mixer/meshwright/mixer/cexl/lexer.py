"""Cuts an expression into tokens. Literals follow Go's rules, because Mixer's expressions always were Go's."""

from __future__ import annotations

import re
from dataclasses import dataclass

from meshwright.mixer.cexl.errors import ExpressionError

MAX_CHARACTERS = 8192
"""Longest expression; real ones have a few hundred characters."""

_TOKEN = re.compile(
    r"""
    (?P<space>\s+)
  | (?P<number>(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?)
  | (?P<name>\$?[A-Za-z_][A-Za-z0-9_]*)
  | (?P<text>"(?:[^"\\\n]|\\.)*"|`[^`]*`)
  | (?P<operator>\|\||&&|==|!=|<=|>=|[-<>|+!.,()\[\]])
    """,
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))", re.DOTALL)
_PLAIN_ESCAPES = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"', "'": "'",
}  # fmt: skip
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")


@dataclass(frozen=True, slots=True)
class Token:
    """`kind` is number, name, text, operator or end; `text` is what was written (for text: what it means)."""

    kind: str
    text: str
    position: int


def is_name(text: str) -> bool:
    """Whether expressions can read an attribute of this name."""
    return _NAME.fullmatch(text) is not None and text not in ("true", "false")


def tokenize(source: str) -> list[Token]:
    """All tokens of `source`, the last one of kind "end"."""
    if len(source) > MAX_CHARACTERS:
        raise ExpressionError(source, MAX_CHARACTERS, "expression too long", f"keep it to {MAX_CHARACTERS} characters")
    tokens: list[Token] = []
    position = 0
    while position < len(source):
        match = _TOKEN.match(source, position)
        if match is None:
            raise ExpressionError(source, position, *_unreadable(source[position]))
        kind = match.lastgroup or ""
        if kind == "text":
            tokens.append(Token(kind, _unquote(source, match.group(), position), position))
        elif kind != "space":
            tokens.append(Token(kind, match.group(), position))
        position = match.end()
    tokens.append(Token("end", "", len(source)))
    return tokens


def _unreadable(character: str) -> tuple[str, str]:
    if character in "\"`'":
        quote = "text in single quotes" if character == "'" else "text without its closing quote"
        return quote, 'write text as "…" on one line, or between back quotes'
    if character == "=":
        return "single `=`", "compare with `==`"
    if character == "&":
        return "single `&`", "combine conditions with `&&`"
    return f"unexpected {character!r}", "use only names, literals, brackets and the operators of CEXL"


def _unquote(source: str, quoted: str, position: int) -> str:
    body = quoted[1:-1]
    if quoted[0] == "`":
        return body.replace("\r", "")

    def meaning(match: re.Match[str]) -> str:
        hexadecimal = match.group(1) or match.group(2) or match.group(3)
        code = int(hexadecimal, 16) if hexadecimal else int(match.group(4), 8) if match.group(4) else None
        if code is None:
            plain = _PLAIN_ESCAPES.get(match.group(5))
            if plain is not None:
                return plain
        elif code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF:
            return chr(code)
        remedy = r"use \\ for a backslash, or back quotes around a regular expression"
        raise ExpressionError(source, position + 1 + match.start(), f"unknown escape `{match.group()}`", remedy)

    return _ESCAPE.sub(meaning, body)
