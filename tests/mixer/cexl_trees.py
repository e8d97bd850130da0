"""Hypothesis strategies for expressions of every type with requests that they read, and a writer of syntax trees."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from meshwright.mixer.cexl import ValueType
from meshwright.mixer.cexl.syntax import Call, Index, Literal, Name, Node, Operation

Text = st.SearchStrategy[str]
V = ValueType

MANIFEST = {
    "tenant.discount": V.DOUBLE,
    "tenant.share": V.DOUBLE,
    "tenant.domain": V.DNS_NAME,
    "tenant.owner": V.EMAIL_ADDRESS,
    "tenant.home": V.URI,
}
"""Attributes that the tests' own manifest adds, for the types that no usual attribute has."""

ATTRIBUTES: dict[V, list[str]] = {
    V.STRING: ["request.path", "request.host", "request.method"],
    V.INT64: ["response.code", "request.size"],
    V.DOUBLE: ["tenant.discount", "tenant.share"],
    V.BOOL: ["connection.mtls", "check.cache_hit"],
    V.TIMESTAMP: ["request.time", "context.time"],
    V.DURATION: ["response.duration", "connection.duration"],
    V.IP_ADDRESS: ["source.ip", "destination.ip"],
    V.DNS_NAME: ["tenant.domain"],
    V.EMAIL_ADDRESS: ["tenant.owner"],
    V.URI: ["tenant.home"],
    V.STRING_MAP: ["request.headers", "source.labels"],
}

WORDS = [
    "", "a", "A", "ab", "b", "*", "a*", "*b", "x.mesh", "X.Mesh.", "-x", "a..b", "ann@Example.org", "ann@example.org",
    "HTTP://Shop/P", "http://shop/P", "http://shop", "10.0.0.1", "::ffff:10.0.0.1", "fd00::1", "10.0.0.300", "é", "Ä",
    "2026-01-02T15:04:05Z", "2026-01-02T16:04:05+01:00", "2026-01-02t15:04:05.000000001z", "2026-13-02T15:04:05Z",
    "9999-12-31T23:59:59Z", "with blank", "ß😀",
]  # fmt: skip
_MOMENTS = st.datetimes(datetime(2025, 1, 1), datetime(2026, 12, 31)).map(lambda each: each.replace(tzinfo=UTC))
_SPANS = st.sampled_from([timedelta(0), timedelta(milliseconds=250), timedelta(seconds=90), timedelta(microseconds=1)])
_ADDRESSES = st.sampled_from([bytes([10, 0, 0, 1]), bytes(10) + b"\xff\xff\x0a\0\0\x01", b"\xfd" + bytes(14) + b"\x01"])
_DOUBLES = st.sampled_from([0.0, -0.0, 0.1, 0.2, 0.3, 1.5, -2.75, 1e308, 1e-300])
_VALUES: dict[V, st.SearchStrategy[Any]] = {
    V.STRING: st.sampled_from(WORDS),
    V.INT64: st.sampled_from([0, 1, 200, -7, 2**63 - 1, -(2**63)]),
    V.DOUBLE: _DOUBLES,
    V.BOOL: st.booleans(),
    V.TIMESTAMP: _MOMENTS,
    V.DURATION: _SPANS,
    V.IP_ADDRESS: _ADDRESSES,
    V.DNS_NAME: st.sampled_from(["x.mesh", "X.MESH.", "y.mesh"]),
    V.EMAIL_ADDRESS: st.sampled_from(["ann@example.org", "ann@Example.Org.", "Ann@example.org"]),
    V.URI: st.sampled_from(["http://shop/P", "HTTP://SHOP/P", "http://shop/p"]),
    V.STRING_MAP: st.dictionaries(st.sampled_from(["a", "b", "ab"]), st.sampled_from(WORDS), max_size=3),
}

REQUESTS = st.fixed_dictionaries(
    {}, optional={name: _VALUES[kind] for kind, names in ATTRIBUTES.items() for name in names}
)
"""Attributes of requests; each may be absent."""


def quoted(text: str) -> str:
    """A literal, in either way of quoting."""
    return f"`{text}`" if "\\" in text and "`" not in text else json.dumps(text, ensure_ascii=False)


_LITERALS: dict[V, Text] = {
    V.STRING: st.sampled_from(WORDS).map(quoted),
    V.INT64: _VALUES[V.INT64].map(str),
    V.DOUBLE: st.sampled_from(["0.0", "0.1", "1.5e3", "-2.75", "2"]),
    V.BOOL: st.sampled_from(["true", "false"]),
    V.TIMESTAMP: st.sampled_from(
        [
            'timestamp("2026-01-02T15:04:05Z")',
            'timestamp("2026-01-02T15:04:05.0000000019Z")',
            'timestamp("3000-01-01T00:00:00Z")',
        ]
    ),
    V.DURATION: st.sampled_from(['"250ms"', '"1m30s"', '"0s"']),
    V.IP_ADDRESS: st.sampled_from(['ip("10.0.0.1")', 'ip("fd00::1")', 'ip("::ffff:10.0.0.1")']),
    V.DNS_NAME: st.sampled_from(['dnsName("x.mesh")', 'dnsName("X.mesh.")']),
    V.EMAIL_ADDRESS: st.sampled_from(['email("ann@example.org")', 'email("Ann@Example.ORG")']),
    V.URI: st.sampled_from(['uri("http://shop/P")', 'uri("Http://Shop/P")']),
    V.STRING_MAP: st.just("emptyStringMap()"),
}
_CONVERSIONS = {
    V.IP_ADDRESS: "ip",
    V.TIMESTAMP: "timestamp",
    V.DNS_NAME: "dnsName",
    V.EMAIL_ADDRESS: "email",
    V.URI: "uri",
}
_ORDERED = [V.INT64, V.DOUBLE, V.STRING, V.TIMESTAMP, V.DURATION]
_SCALARS = [kind for kind in V if kind is not V.STRING_MAP]
_PATTERNS = st.sampled_from(["^a", "b$", "[a-z]+", "(?i)HTTP", r"\.", ".*", "^$"]).map(quoted)


def of(kind: V, depth: int = 3) -> Text:
    """Expressions of a type; a bare literal only where the type doesn't hang on its neighbour."""
    attribute = st.sampled_from(ATTRIBUTES[kind])
    leaves: list[Text] = [attribute]
    if kind not in (V.DURATION, V.DOUBLE):
        leaves.append(_LITERALS[kind])
    if kind is V.STRING:
        leaves.append(st.builds("{}[{}]".format, of(V.STRING_MAP, 0), st.sampled_from(['"a"', '"ab"', "request.path"])))
    if depth <= 0:
        return st.one_of(leaves)
    below, condition = of(kind, depth - 1), st.deferred(lambda: of(V.BOOL, depth - 1))
    operand = st.one_of(below, _LITERALS[kind])
    deeper: list[Text] = [
        st.builds("({} | {})".format, below, operand),
        st.builds("conditional({}, {}, {})".format, condition, below, operand),
    ]
    if kind in (V.STRING, V.INT64, V.DOUBLE, V.DURATION):
        deeper.append(st.builds("({} + {} + {})".format, below, operand, operand))
    if kind in _CONVERSIONS:
        deeper.append(st.builds((_CONVERSIONS[kind] + "({})").format, st.sampled_from(ATTRIBUTES[V.STRING])))
    if kind is V.STRING:
        deeper += [
            st.builds("toLower({})".format, below),
            st.builds("conditionalString({}, {}, {})".format, condition, below, below),
        ]
    if kind is V.INT64:
        deeper.append(st.builds("size({})".format, st.deferred(lambda: of(V.STRING, depth - 1))))
    if kind is V.BOOL:
        deeper += _conditions(depth)
    return st.one_of(*leaves, *deeper)


def _conditions(depth: int) -> list[Text]:
    def pair(kinds: list[V], operators: list[str]) -> Text:
        return st.sampled_from(kinds).flatmap(
            lambda kind: st.builds(
                "({} {} {})".format,
                of(kind, depth - 1),
                st.sampled_from(operators),
                st.one_of(of(kind, depth - 1), _LITERALS[kind]),
            )
        )

    boolean, text = st.deferred(lambda: of(V.BOOL, depth - 1)), st.deferred(lambda: of(V.STRING, depth - 1))
    return [
        pair(_SCALARS, ["==", "!="]),
        pair(_ORDERED, ["<", "<=", ">", ">="]),
        st.builds("({} && {})".format, boolean, boolean),
        st.builds("({} || {} || {})".format, boolean, boolean, boolean),
        st.builds("!{}".format, boolean),
        st.builds("match({}, {})".format, text, text),
        st.builds("{}.matches({})".format, _PATTERNS, text),
        st.builds("({}).startsWith({})".format, text, text),
        st.builds("({}).endsWith({})".format, text, text),
    ]


CONDITIONS = of(V.BOOL)


# Syntax trees, whatever their types: what the writer writes the parser reads back.

_NAMES = st.lists(st.sampled_from(["a", "request", "_x9", "Path", "trueish"]), min_size=1, max_size=3).map(".".join)
_LEAVES: st.SearchStrategy[Node] = st.one_of(
    st.builds(Name, _NAMES, st.just(0)),
    st.builds(Literal, st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=8), st.just(0)),
    st.builds(Literal, st.integers(-(2**63), 2**63 - 1), st.just(0)),
    st.builds(Literal, st.floats(allow_nan=False, allow_infinity=False), st.just(0)),
    st.builds(Literal, st.booleans(), st.just(0)),
)
_OPERATORS = {"||": 1, "&&": 2, "==": 3, "!=": 3, "<": 3, "<=": 3, ">": 3, ">=": 3, "|": 4, "+": 4}


def _inner(below: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    def operation(operator: str, operands: list[Node]) -> Node:
        if operator not in ("||", "&&", "|", "+"):
            operands = operands[:2]
        first, *others = operands
        # The parser makes one flat node of `a && b && c`, so no first operand is a chain of the same operator.
        if isinstance(first, Operation) and first.operator == operator and operator in ("||", "&&", "|", "+"):
            return Operation(operator, (*first.operands, *others), 0)
        return Operation(operator, (first, *others), 0)

    names = st.sampled_from(["size", "match", "f"])
    arguments = st.lists(below, max_size=3).map(tuple)
    return st.one_of(
        st.builds(operation, st.sampled_from([*_OPERATORS]), st.lists(below, min_size=2, max_size=4)),
        st.builds(lambda each: Operation("!", (each,), 0), below),
        st.builds(lambda target, key: Index(target, key, 0), below, below),
        st.builds(lambda name, given: Call(name, given, None, 0), names, arguments),
        st.builds(lambda name, given, receiver: Call(name, given, receiver, 0), names, arguments, below),
    )


TREES: st.SearchStrategy[Node] = st.recursive(_LEAVES, _inner, max_leaves=12)


def write(node: Node) -> str:
    """The text of a tree, with brackets around every operation that is part of another."""
    match node:
        case Literal(bool() as value):
            return str(value).lower()
        case Literal(str() as value):
            return f'"{"".join(map(_escaped, value))}"'
        case Literal(float() as value):
            return repr(value)
        case Literal(value):
            return str(value)
        case Name(name):
            return name
        case Index(target, key):
            return f"{_bound(target)}[{write(key)}]"
        case Operation("!", (operand,)):
            return f"!{_bracketed(operand)}"
        case Operation(operator, operands):
            return f" {operator} ".join(map(_bracketed, operands))
        case Call(function, arguments, None):
            return f"{function}({', '.join(map(write, arguments))})"
        case Call(function, arguments, receiver):
            return f"{_bound(receiver)}.{function}({', '.join(map(write, arguments))})"


def _bracketed(node: Node) -> str:
    return f"({write(node)})" if isinstance(node, Operation) else write(node)


def _bound(node: Node) -> str:
    """What something is called or looked up on."""
    is_number = isinstance(node, Literal) and not isinstance(node.value, str)
    return f"({write(node)})" if isinstance(node, Operation) or is_number else write(node)


_PLAIN: Callable[[str], bool] = (
    frozenset(string.printable).difference('"\\' + string.whitespace).union(" ").__contains__
)


def _escaped(character: str) -> str:
    if _PLAIN(character):
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def bare(node: Node) -> Any:
    """A tree without its positions."""
    match node:
        case Literal(value):
            return (type(value).__name__, repr(value))
        case Name(name):
            return ("name", name)
        case Index(target, key):
            return ("index", bare(target), bare(key))
        case Operation(operator, operands):
            return (operator, *map(bare, operands))
        case Call(function, arguments, receiver):
            return (function, tuple(map(bare, arguments)), receiver and bare(receiver))
