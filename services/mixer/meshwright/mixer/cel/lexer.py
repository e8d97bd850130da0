"""Cuts a CEL expression into tokens, by the language definition's lexical rules."""

from __future__ import annotations

import re

from meshwright.mixer.cexl.errors import ExpressionError
from meshwright.mixer.cexl.tokens import ESCAPES, Escapes, Lexer, Token

MAX_CHARACTERS = 65_536
"""Longest expression. What people write has a few hundred characters, what policies become has more."""

RESERVED = frozenset(
    {
        "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package",
        "namespace", "return", "var", "void", "while",
    }
)  # fmt: skip
"""Words that name nothing, though they may follow a dot (`source.namespace`)."""

_TOKEN = re.compile(
    r"""
    (?P<space>(?:[ \t\n\f\r]+|//[^\n]*)+)
  | (?P<raw>(?:[rR][bB]?|[bB][rR])(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"[^"\r\n]*"|'[^'\r\n]*'))
  | (?P<text>[bB]?(?:\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}
        |"(?:\\[^\r\n]|[^"\\\r\n])*"|'(?:\\[^\r\n]|[^'\\\r\n])*'))
  | (?P<number>0[xX][0-9a-fA-F]+[uU]?|[0-9]*\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+|[0-9]+[uU]?)
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<operator>\|\||&&|==|!=|<=|>=|[-<>+*/%!?:.,()\[\]])
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPES = Escapes(
    re.compile(r"\\(?:[xX]([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|(.))", re.DOTALL),
    {**ESCAPES, "`": "`", "?": "?"},
    r'use \\ for a backslash, or r"…" around a regular expression',
)


def tokenize(source: str) -> list[Token]:
    """All tokens of `source`, the last one of kind "end"."""
    return _LEXER.tokenize(source)


def _unreadable(character: str) -> tuple[str, str]:
    if character in "\"'":
        return "text without its closing quote", "write text as \"…\" or '…' on one line"
    if character == "`":
        return "text between back quotes", 'write text as "…", and a regular expression as r"…"'
    if character == "=":
        return "single `=`", "compare with `==`"
    if character == "&":
        return "single `&`", "combine conditions with `&&`"
    if character == "|":
        return "single `|`", "combine conditions with `||`; give a default with default(value, otherwise)"
    if character == "{":
        return "a map or message literal", "compare single keys of a map attribute"
    return f"unexpected {character!r}", "use only names, literals, brackets and the operators of CEL"


def _unquote(source: str, quoted: str, position: int) -> str:
    start = min(found for quote in "\"'" if (found := quoted.find(quote)) >= 0)
    prefix, body = quoted[:start].lower(), quoted[start:]
    if "b" in prefix:
        raise ExpressionError(source, position, "bytes", "no attribute is made of bytes: write text")
    width = 3 if len(body) >= 6 and body[:3] in ('"""', "'''") else 1
    body = body[width:-width]
    if "r" in prefix:
        return body
    return _ESCAPES.decode(source, body, position + start + width)


_LEXER = Lexer(_TOKEN, MAX_CHARACTERS, _unquote, _unreadable)
