"""The syntax tree that the parser yields: names as written, no types yet.

Chains of one operator (`a && b && c`) are one flat node, so the depth of a tree is the depth of its brackets.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant: text, whole number, number or truth value."""

    value: str | int | float | bool
    position: int


@dataclass(frozen=True, slots=True)
class Name:
    """A dotted attribute name."""

    name: str
    position: int


@dataclass(frozen=True, slots=True)
class Index:
    """`map["key"]`."""

    target: Node
    key: Node
    position: int


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator and its operands: `!` has one, comparisons two, `&&`, `||`, `|` and `+` two or more."""

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


Node = Literal | Name | Index | Operation | Call
