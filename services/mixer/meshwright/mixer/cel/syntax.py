"""The syntax tree of CEL: names as written, no types yet.

Chains of `&&` and of `||` are one flat node each, so that a list of alternatives is no nesting.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshwright.mixer.cexl.syntax import Literal as Literal


@dataclass(frozen=True, slots=True)
class Identifier:
    """The first name of a path, such as `request` of `request.path`."""

    name: str
    position: int


@dataclass(frozen=True, slots=True)
class Select:
    """`target.field`"""

    target: Node
    field: str
    position: int


@dataclass(frozen=True, slots=True)
class Index:
    """`target[key]`"""

    target: Node
    key: Node
    position: int


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator and its operands: `!` and unary `-` have one, `?:` three, `&&` and `||` two or more, others two."""

    operator: str
    operands: tuple[Node, ...]
    position: int


@dataclass(frozen=True, slots=True)
class Call:
    """`function(a, b)`, or `a.function(b)`, where `receiver` is a."""

    function: str
    arguments: tuple[Node, ...]
    receiver: Node | None
    position: int


@dataclass(frozen=True, slots=True)
class ListLiteral:
    """`[a, b]`, which only `in` takes."""

    elements: tuple[Node, ...]
    position: int


Node = Literal | Identifier | Select | Index | Operation | Call | ListLiteral
