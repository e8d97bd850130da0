"""Hypothesis strategies for expressions: well-typed ones built from the grammar, and arbitrary text."""

from __future__ import annotations

from hypothesis import strategies as st

_STRING = st.sampled_from(
    ["source.principal", "request.path", 'request.headers["x-user"]', '"text"', "toLower(request.host)", "`raw`"]
)
_NUMBER = st.sampled_from(["response.code", "request.size", "7", "-3", "size(request.path)"])
_DURATION = st.sampled_from(["response.duration", "connection.duration"])
_ADDRESS = st.sampled_from(["source.ip", 'ip("10.0.0.1")', 'ip("fd00::1")'])


def _joined(operator: str, parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(parts, min_size=2, max_size=4).map(lambda each: f"({f' {operator} '.join(each)})")


STRINGS = st.recursive(_STRING, lambda inner: _joined("|", inner) | _joined("+", inner), max_leaves=6)
NUMBERS = st.recursive(_NUMBER, lambda inner: _joined("|", inner) | _joined("+", inner), max_leaves=6)
_COMPARED = (
    st.tuples(STRINGS, st.sampled_from(["==", "!=", "<", ">="]), STRINGS).map(" ".join)
    | st.tuples(NUMBERS, st.sampled_from(["==", "<", "<=", ">"]), NUMBERS).map(" ".join)
    | st.tuples(_DURATION, st.sampled_from(["<", ">"]), st.just('"1.5s"')).map(" ".join)
    | st.tuples(_ADDRESS, st.just("=="), _ADDRESS).map(" ".join)
    | st.tuples(STRINGS, STRINGS).map(lambda pair: f"({pair[0]}).startsWith({pair[1]})")
    | STRINGS.map(lambda text: f'"^a.*$".matches({text})')
)
CONDITIONS = st.recursive(
    _COMPARED.map(lambda text: f"({text})"),
    lambda inner: _joined("&&", inner) | _joined("||", inner) | inner.map(lambda text: f"!{text}"),
    max_leaves=8,
)

NOISE = st.text(max_size=200) | st.lists(
    st.sampled_from([*'()[].,"`!<>=|&+-', "source.ip", "request.path", '"x"', "1", "1e999", "match", "&&", "||", " "]),
    max_size=60,
).map("".join)
