"""The path of a connection (nsm.md, pitfall 4) and of a registration (pitfall 3)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.core import errors
from meshwright.nsm import path, registry_path
from meshwright.nsm.errors import InvalidPath
from meshwright.nsm.wire import Connection, Path, PathSegment


def _passed(*names: str) -> Connection:
    """A connection that a client made and that passed these hops, as the last of them sees it."""
    connection = Connection()
    path.start(connection, "client", "client-0")
    for name in names:
        path.step_forward(connection, name)
    return connection


def test_a_hop_appends_itself_and_answers_with_the_caller_s_index() -> None:
    connection = _passed("nsmgr")
    assert [segment.name for segment in connection.path.path_segments] == ["client", "nsmgr"]
    assert connection.path.index == 1
    assert connection.id == connection.path.path_segments[1].id
    path.step_back(connection, 0)
    assert (connection.path.index, connection.id) == (0, "client-0")


def test_a_refresh_finds_the_same_ids_all_the_way() -> None:
    """The client sends the whole path back; every hop, also one passed twice, takes up its own segment."""
    connection = _passed("nsmgr", "forwarder", "nsmgr", "endpoint")
    ids = [segment.id for segment in connection.path.path_segments]
    connection.path.index, connection.id = 0, "client-0"
    for name in ("nsmgr", "forwarder", "nsmgr", "endpoint"):
        path.step_forward(connection, name)
    assert [segment.id for segment in connection.path.path_segments] == ids


def test_another_hop_in_its_place_begins_anew() -> None:
    connection = _passed("nsmgr", "forwarder-1", "nsmgr")
    ids = [segment.id for segment in connection.path.path_segments]
    connection.path.index, connection.id = 1, ids[1]
    path.step_forward(connection, "forwarder-2")
    assert [segment.name for segment in connection.path.path_segments] == ["client", "nsmgr", "forwarder-2"]
    assert connection.id not in ids


def test_an_id_that_was_lost_is_found_again() -> None:
    """A client that comes without the later segments gets the hop's earlier id, not a second connection."""
    connection = Connection()
    path.start(connection, "client", "client-0")
    path.step_forward(connection, "nsmgr", known="the-earlier-id")
    assert connection.id == "the-earlier-id"


@pytest.mark.parametrize(
    ("connection", "field"),
    [
        (Connection(id="a", path=Path(index=0, path_segments=[PathSegment(id="b")])), "id"),
        (Connection(id="a", path=Path(index=5, path_segments=[PathSegment(id="a")])), "path.index"),
        (Connection(id="a", path=Path(index=1)), "path.index"),
        (Connection(id="a", path=Path(path_segments=[PathSegment(id="a")] * 33)), "path.path_segments"),
        (Connection(id="a", path=Path(path_segments=[PathSegment(id="a"), PathSegment()])), r"path_segments\[1\]"),
        (Connection(id="x" * 2000, path=Path(path_segments=[PathSegment(id="x" * 2000)])), "id"),
    ],
)
def test_a_path_that_can_not_be_names_the_field(connection: Connection, field: str) -> None:
    with pytest.raises(InvalidPath, match=field):
        path.step_forward(connection, "nsmgr")


_segments = st.lists(
    st.builds(PathSegment, name=st.sampled_from(["", "nsmgr", "x"]), id=st.sampled_from(["", "a", "b"])), max_size=4
)


@given(st.sampled_from(["", "a", "b"]), st.integers(0, 6), _segments)
def test_any_path_is_entered_or_refused(identifier: str, index: int, segments: list[PathSegment]) -> None:
    """Stepping forward and back leaves the caller's index and id, or ends in InvalidPath."""
    connection = Connection(id=identifier, path=Path(index=index, path_segments=segments))
    try:
        before = path.step_forward(connection, "nsmgr")
    except errors.ConfigError:
        return
    assert connection.path.path_segments[connection.path.index].id == connection.id
    path.step_back(connection, before)
    assert connection.path.index == before
    if identifier:
        assert connection.id == identifier


def test_registry_path_of_an_original_client() -> None:
    """The original's JSON comes back with the tokens in their places."""
    sent = registry_path.parse('{"Index":0,"PathSegments":[{"token":""}]}')
    answered = sent.with_caller("T0", "T1")
    assert json.loads(answered.dump()) == {"Index": 0, "PathSegments": [{"token": "T0"}, {"token": "T1"}]}
    assert answered.next_hop().index == 1


@pytest.mark.parametrize("text", ["null", "{}", '{"index":0,"pathSegments":[{"token":"t"}]}', '{"PathSegments":null}'])
def test_registry_path_takes_what_the_original_takes(text: str) -> None:
    assert registry_path.parse(text).index == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"Index":0,"PathSegments":[null]}', r"PathSegments\[0\]: isn't an object"),
        ('{"Index":1,"PathSegments":[{"token":"t"}]}', "is 1 in a path of 1"),
        ('{"Index":-1}', "must be a number"),
        ('{"Index":true}', "must be a number"),
        ('{"PathSegments":{}}', "isn't a list"),
        ('{"PathSegments":[{"token":7}]}', "isn't a text"),
        ("[]", "isn't a JSON object"),
        ("{", "isn't JSON"),
        ("[" * 100_000, "isn't JSON"),
        (json.dumps({"PathSegments": [{}] * 33}), "more than 32"),
    ],
)
def test_registry_path_refuses_with_a_reason(text: str, reason: str) -> None:
    """The first of these kills the original registry and manager."""
    with pytest.raises(InvalidPath, match=reason):
        registry_path.parse(text)


_json = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["Index", "PathSegments", "token", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(_json.map(json.dumps) | st.text(max_size=30))
def test_any_registry_path_is_read_or_refused(text: str) -> None:
    """Reading ends in a path or in InvalidPath; what was read can be written and read again."""
    try:
        read = registry_path.parse(text)
    except errors.ConfigError:
        return
    assert registry_path.parse(read.dump()) == read


def test_the_last_of_several_values_counts() -> None:
    assert registry_path.find([("path", "a"), ("other", "b"), ("path", b"c")]) == "c"
    assert registry_path.find([]) is None
