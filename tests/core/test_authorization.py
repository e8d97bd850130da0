"""Who may call what: the Python table (grpc.aio's front) and the Rust one (the native front) decide alike."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshwright.core import errors
from meshwright.core.grpc import Authorization
from meshwright.dataplane import _native

# Few letters, so that prefixes, patterns and names meet often.
_names = st.one_of(
    st.sampled_from(["anonymous", "unix:uid=0", "unix:uid=10"]),
    st.builds(
        lambda domain, path: f"spiffe://{domain}/{path}", st.sampled_from(["a", "a.b"]), st.text("xy/", max_size=3)
    ),
    st.text("ab.", max_size=3).map(lambda host: f"dns:{host}"),
)
_patterns = st.one_of(
    _names,
    st.builds(lambda name, length: name[:length] + "*", _names, st.integers(0, 20)),
    _names.map(str.upper),
    st.just("*"),
)
_paths = st.text("ab/.", max_size=4).map(lambda text: "/" + text)
_rules = st.lists(st.tuples(_paths, st.lists(_patterns, max_size=3)), max_size=4)


@given(_rules, _paths, st.lists(_names, max_size=3))
@example([("/a.B/", ["*"])], "/a.B/C", ["anonymous"])
@example([("/a.B/C", []), ("/a.B/", ["*"])], "/a.B/C", ["spiffe://a/x"])
@example([("/a.B/", ["dns:A.b"])], "/a.B/C", ["spiffe://a/x", "dns:a.b"])
@example([("/a.B/", ["spiffe://a*"])], "/a.B/C", ["spiffe://a.b/x"])
def test_both_tables_decide_alike(rules: list[tuple[str, list[str]]], path: str, names: list[str]) -> None:
    """By the first rule whose prefix fits, alone; nobody without a rule or a name."""
    assert Authorization(rules).allows(path, *names) == _native.Rules(rules).allows(path, names)


@given(_paths, st.lists(_names, max_size=3))
def test_nothing_is_allowed_without_a_rule(path: str, names: list[str]) -> None:
    """Deny is the default; a caller without a name is never allowed."""
    assert not Authorization([]).allows(path, *names)
    assert not Authorization([("/", ["*"])]).allows(path, None)
    assert not _native.Rules([("/", ["*"])]).allows(path, [])


@pytest.mark.parametrize("rules", [[("a.B/", ["*"])], [("/a.B/", ["spiffe://*/x"])], [("/a.B/", ["**"])]])
def test_malformed_rules_are_refused_by_both(rules: list[tuple[str, list[str]]]) -> None:
    """At the start, not by never fitting."""
    with pytest.raises(errors.ConfigError, match="authorize"):
        Authorization(rules)
    with pytest.raises(ValueError, match=r"no (path prefix|caller pattern)"):
        _native.Rules(rules)
