"""A parser's place in its tokens, and its bounds: expressions come from users.

One decision to know: the end is a token like others and is never passed, so that a parser can look anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from meshwright.mixer.cexl.errors import ExpressionError
from meshwright.mixer.cexl.tokens import Token

MAX_DEPTH = 32
"""Deepest nesting, and longest chain of what is evaluated one in the other."""

N = TypeVar("N")


class Cursor:
    """What the parsers of both languages are made of; `nests` says what `MAX_DEPTH` is about."""

    def __init__(self, source: str, tokens: Sequence[Token], *, max_nodes: int, nests: str) -> None:
        self.source, self.tokens = source, tokens
        self.max_nodes, self.nests = max_nodes, nests
        self.next = 0
        self.depth = 0
        self.nodes = 0

    def whole(self, expression: Callable[[], N]) -> N:
        """What `expression` reads, which must be all there is."""
        if self.token.kind == "end":
            raise self.error(self.token, "empty expression", "write a condition, or leave the field out")
        node = expression()
        if self.token.kind != "end":
            remedy = "join the parts with an operator, or remove what follows"
            raise self.error(self.token, f"unexpected `{self.token.text}`", remedy)
        return node

    @property
    def token(self) -> Token:
        """The one that comes next."""
        return self.tokens[self.next]

    def error(self, token: Token, reason: str, remedy: str) -> ExpressionError:
        """A fault at a token."""
        return ExpressionError(self.source, token.position, reason, remedy)

    def take(self) -> Token:
        """Go on to the token after."""
        token = self.token
        self.next += token.kind != "end"
        return token

    def at(self, operator: str) -> bool:
        """Whether the operator comes next."""
        return self.token.kind == "operator" and self.token.text == operator

    def expect(self, operator: str, after: str) -> None:
        """Take the operator."""
        if not self.at(operator):
            raise self.error(self.token, f"`{operator}` is missing after {after}", f"add `{operator}`")
        self.take()

    def count(self, token: Token) -> None:
        """Count a node of the tree."""
        self.nodes += 1
        if self.nodes > self.max_nodes:
            raise self.error(token, "expression too large", f"keep it to {self.max_nodes} parts, or split the rule")

    def listed(self, opening: Token, end: str, element: Callable[[], N]) -> tuple[N, ...]:
        """Elements up to `end`, with commas between them; the opening bracket is taken already."""
        values: list[N] = []
        with self.nested(opening):
            while not self.at(end):
                if values:
                    self.expect(",", "the argument" if end == ")" else "the element")
                    if end == "]" and self.at(end):
                        break
                values.append(element())
        self.take()
        return tuple(values)

    @contextmanager
    def nested(self, token: Token) -> Iterator[None]:
        """Read what lies one deeper."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.error(token, "nested too deep", f"nest {self.nests} {MAX_DEPTH} deep at most")
        yield
        self.depth -= 1
