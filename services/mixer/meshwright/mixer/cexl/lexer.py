"""Cuts an expression into tokens. Literals follow Go's rules, because Mixer's expressions always were Go's."""

from __future__ import annotations

import re

from meshwright.mixer.cexl.tokens import ESCAPES, Escapes, Lexer, Token

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
_ESCAPES = Escapes(
    re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))", re.DOTALL),
    ESCAPES,
    r"use \\ for a backslash, or back quotes around a regular expression",
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")


def is_name(text: str) -> bool:
    """Whether expressions can read an attribute of this name."""
    return _NAME.fullmatch(text) is not None and text not in ("true", "false")


def tokenize(source: str) -> list[Token]:
    """All tokens of `source`, the last one of kind "end"."""
    return _LEXER.tokenize(source)


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
    return _ESCAPES.decode(source, body, position + 1)


_LEXER = Lexer(_TOKEN, MAX_CHARACTERS, _unquote, _unreadable)
