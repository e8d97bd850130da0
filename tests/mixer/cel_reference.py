"""CEL once more, written only from its definition: makes expressions with what they must yield.

Text has as few brackets as the precedence table asks for, so a parser that binds otherwise yields something else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

INT64 = range(-(2**63), 2**63)

ENVIRONMENT: Mapping[str, Any] = {
    "request.path": "/items/7",
    "request.host": "Shop.Demo",
    "request.method": "GET",
    "source.namespace": "demo",
    "request.size": 700,
    "response.code": 404,
    "connection.mtls": True,
    "check.cache_hit": False,
    "request.headers": {"x-user": "ann", "x-empty": "", "tier": "gold"},
}
"""What the request carries; other attributes are absent."""


class NoValueError(Exception):
    """The expression has no value."""


@dataclass(frozen=True)
class Expr:
    """Text, the binding strength of its outermost operator (7: an atom), and its value in ENVIRONMENT."""

    text: str
    strength: int
    value: Callable[[], Any]

    def within(self, strength: int) -> str:
        """The text where operands must bind at least so strongly."""
        return self.text if self.strength >= strength else f"({self.text})"


def atom(text: str, value: Any) -> Expr:
    return Expr(text, 7, lambda: value)


def _absent() -> Any:
    raise NoValueError


def attribute(name: str) -> Expr:
    return Expr(name, 7, (lambda: ENVIRONMENT[name]) if name in ENVIRONMENT else _absent)


def key(name: str, text: str) -> Expr:
    entries = ENVIRONMENT["request.headers"]
    return Expr(text, 7, (lambda: entries[name]) if name in entries else _absent)


def _whole(value: int) -> int:
    if value not in INT64:
        raise NoValueError
    return value


def _divided(a: int, b: int) -> int:
    if b == 0:
        raise NoValueError
    return _whole(abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1))


def _remainder(a: int, b: int) -> int:
    if b == 0 or (a == INT64.start and b == -1):
        raise NoValueError
    return a - b * _divided(a, b)


_INTEGERS: Mapping[str, tuple[int, Callable[[int, int], int]]] = {
    "+": (4, lambda a, b: _whole(a + b)),
    "-": (4, lambda a, b: _whole(a - b)),
    "*": (5, lambda a, b: _whole(a * b)),
    "/": (5, _divided),
    "%": (5, _remainder),
}
_ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: bool(a == b),
    "!=": lambda a, b: bool(a != b),
    "<": lambda a, b: bool(a < b),
    "<=": lambda a, b: bool(a <= b),
    ">": lambda a, b: bool(a > b),
    ">=": lambda a, b: bool(a >= b),
}


def binary(operator: str, strength: int, apply: Callable[[Any, Any], Any], left: Expr, right: Expr) -> Expr:
    """Operators bind to the left."""
    text = f"{left.within(strength)} {operator} {right.within(strength + 1)}"
    return Expr(text, strength, lambda: apply(left.value(), right.value()))


def logic(operator: str, decisive: bool, left: Expr, right: Expr) -> Expr:
    """A decisive side decides; otherwise an error of either is the result's."""

    def value() -> bool:
        results = []
        for side in (left, right):
            try:
                results.append(side.value())
            except NoValueError:
                results.append(None)
        if decisive in results:
            return decisive
        if None in results:
            raise NoValueError
        return not decisive

    strength = 2 if operator == "&&" else 1
    text = f"{left.within(strength)} {operator} {right.within(strength + 1)}"
    return Expr(text, strength, value)


def negated(inner: Expr) -> Expr:
    return Expr(f"!{inner.within(6)}", 6, lambda: not inner.value())


def minus(inner: Expr) -> Expr:
    return Expr(f"-{inner.within(7)}", 6, lambda: _whole(-inner.value()))


def chosen(condition: Expr, yes: Expr, no: Expr) -> Expr:
    text = f"{condition.within(1)} ? {yes.within(1)} : {no.text}"
    return Expr(text, 0, lambda: yes.value() if condition.value() else no.value())


def otherwise(value: Expr, fallback: Expr) -> Expr:
    def result() -> Any:
        try:
            return value.value()
        except NoValueError:
            return fallback.value()

    return Expr(f"default({value.text}, {fallback.text})", 7, result)


def method(name: str, apply: Callable[[str, str], bool], text: Expr, part: Expr) -> Expr:
    return Expr(f"{text.within(7)}.{name}({part.text})", 7, lambda: apply(text.value(), part.value()))


def member(value: Expr, elements: list[Any]) -> Expr:
    written = ", ".join(f'"{each}"' if isinstance(each, str) else str(each) for each in elements)
    return Expr(f"{value.within(3)} in [{written}]", 3, lambda: value.value() in elements)


_TEXT_ATOMS = st.sampled_from(
    [
        *(attribute(name) for name in ("request.path", "request.host", "request.method", "source.namespace")),
        attribute("source.principal"),
        key("x-user", 'request.headers["x-user"]'),
        key("tier", "request.headers.tier"),
        key("none", "request.headers.none"),
        atom('"demo"', "demo"),
        atom("'GET'", "GET"),
        atom('r"/i"', "/i"),
        atom('"\\u0047\\x45T"', "GET"),
        atom('""', ""),
    ]
)
TEXTS = st.recursive(
    _TEXT_ATOMS,
    lambda inner: (
        st.builds(lambda a, b: binary("+", 4, lambda x, y: x + y, a, b), inner, inner)
        | st.builds(otherwise, inner, inner)
    ),
    max_leaves=4,
)
_INTEGER_ATOMS = st.sampled_from(
    [
        attribute("request.size"),
        attribute("response.code"),
        attribute("source.port"),
        atom("0", 0),
        atom("7", 7),
        atom("0x10", 16),
        atom("9223372036854775807", 2**63 - 1),
        Expr("-9223372036854775808", 6, lambda: -(2**63)),
        Expr("-3", 6, lambda: -3),
    ]
)
INTEGERS = st.recursive(
    _INTEGER_ATOMS,
    lambda inner: (
        st.builds(
            lambda operator, a, b: binary(operator, *_INTEGERS[operator], a, b),
            st.sampled_from([*_INTEGERS]),
            inner,
            inner,
        )
        | inner.filter(lambda each: not each.text[0].isdigit()).map(minus)
        | TEXTS.map(lambda text: Expr(f"size({text.text})", 7, lambda: len(text.value())))
    ),
    max_leaves=6,
)
_TRUTH_ATOMS = st.sampled_from(
    [
        attribute("connection.mtls"),
        attribute("check.cache_hit"),
        attribute("context.reporter.local"),
        atom("true", True),
        atom("false", False),
        atom("has(request.path)", True),
        atom("has(source.principal)", False),
        atom("has(request.headers.tier)", True),
        Expr('"x-user" in request.headers', 3, lambda: True),
        Expr('"none" in request.headers', 3, lambda: False),
    ]
)
_COMPARED = (
    st.builds(
        lambda operator, a, b: binary(operator, 3, _ORDERS[operator], a, b), st.sampled_from([*_ORDERS]), TEXTS, TEXTS
    )
    | st.builds(
        lambda operator, a, b: binary(operator, 3, _ORDERS[operator], a, b),
        st.sampled_from([*_ORDERS]),
        INTEGERS,
        INTEGERS,
    )
    | st.builds(member, TEXTS, st.lists(st.sampled_from(["GET", "demo", "", "gold"]), min_size=1, max_size=3))
    | st.builds(member, INTEGERS, st.lists(st.sampled_from([0, 404, -3, 16]), min_size=1, max_size=3))
    | st.builds(lambda a, b: method("startsWith", str.startswith, a, b), TEXTS, TEXTS)
    | st.builds(lambda a, b: method("endsWith", str.endswith, a, b), TEXTS, TEXTS)
    | st.builds(lambda a, b: method("contains", lambda x, y: y in x, a, b), TEXTS, TEXTS)
)
CONDITIONS = st.recursive(
    _TRUTH_ATOMS | _COMPARED,
    lambda inner: (
        st.builds(lambda a, b: logic("&&", False, a, b), inner, inner)
        | st.builds(lambda a, b: logic("||", True, a, b), inner, inner)
        | inner.map(negated)
        | st.builds(chosen, inner, inner, inner)
        | st.builds(otherwise, inner, inner)
    ),
    max_leaves=10,
)
NOISE = st.text(max_size=200) | st.lists(
    st.sampled_from(
        [*"()[].,\"'!<>=|&+-*/%?:", "source.ip", "request.path", '"x"', "1", "1.5", "1e999", "0x", "in", "has",
         "default", "r'", '"""', "\\", "//", "\n", "&&", "||", " ", "request.headers", "cidr", "true", "null",
         "7u", "b'x'"]
    ),
    max_size=60,
).map("".join)  # fmt: skip
