"""What the client answers from its cache is what mixer would answer (mixer.md, wire pitfalls 5, 6, 14 and 15)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cexl_strategies import CONDITIONS
from check_servers import engine_of
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_documents import action, document

from meshwright.api.istio.mixer.v1 import mixer_pb2
from meshwright.mixer import check
from meshwright.mixer.client import words
from meshwright.mixer.client.check_cache import CheckCache

EXACT, ABSENCE = mixer_pb2.ReferencedAttributes.EXACT, mixer_pb2.ReferencedAttributes.ABSENCE

_VALUES: dict[str, list[Any]] = {
    "source.principal": ["", "text", "raw"],
    "request.path": ["text", "abc"],
    "request.host": ["RAW"],
    "request.headers": [{}, {"x-user": "text"}, {"x-user": "raw", "": "empty"}, {"": "empty"}, "text"],
    "response.code": [7, -3, True],
    "request.size": [7, 1.0, 1],
    "source.ip": [bytes([10, 0, 0, 1])],
    "destination.namespace": ["shop"],
    "context.reporter.kind": ["inbound", "outbound"],
}
BAGS = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in _VALUES.items()})


def rules(conditions: list[str], uses: int) -> list[Any]:
    """Denials under these conditions."""
    parameters = {"status": {"code": 7, "message": "no"}, "validDuration": "5s", "validUseCount": uses}
    documents = [
        document("handler", "forbid", {"compiledAdapter": "denier", "params": parameters}),
        document("instance", "nothing", {"compiledTemplate": "checknothing"}),
    ]
    for number, condition in enumerate(conditions):
        documents.append(document("rule", f"r{number}", {"match": condition, "actions": [action("forbid", "nothing")]}))
    return documents


def ask(engine: Any, bag: Mapping[str, Any]) -> mixer_pb2.CheckResponse | None:
    """The engine's answer; None when the request is wrong."""
    try:
        return mixer_pb2.CheckResponse.FromString(engine.check(check.request(bag).SerializeToString()))
    except ValueError:
        return None


@settings(max_examples=150, deadline=None)
@given(
    st.lists(CONDITIONS, min_size=1, max_size=3),
    st.sampled_from([-1, 0, 2]),
    st.lists(st.tuples(BAGS, st.floats(0, 3)), min_size=2, max_size=25),
)
def test_an_answer_from_the_cache_is_the_servers(
    conditions: list[str], uses: int, requests: list[tuple[dict[str, Any], float]]
) -> None:
    """Whatever is asked after whatever else: strings for maps, absent maps and maps without the key included."""
    engine, cache, now = engine_of(rules(conditions, uses)), CheckCache(10), 0.0
    for bag, pause in requests:
        now += pause
        truth, cached = ask(engine, bag), cache.find(bag, now)
        if truth is None:
            assert cached is None
        elif cached is not None:
            assert (cached.status, cached.route_directive) == (
                truth.precondition.status,
                truth.precondition.route_directive,
            )
        else:
            cache.put(bag, truth.precondition, now)


def answer(*references: tuple[str, str, int], uses: int = -1, seconds: float | None = None) -> Any:
    """An answer that refers to (name, key of a map, condition)."""
    precondition = mixer_pb2.CheckResponse.PreconditionResult(valid_use_count=uses)
    referenced = precondition.referenced_attributes
    referenced.SetInParent()
    for name, key, condition in references:
        match = referenced.attribute_matches.add(condition=condition)
        referenced.words.append(name)
        match.name = -len(referenced.words)
        if key:
            referenced.words.append(key)
            match.map_key = -len(referenced.words)
    if seconds is not None:
        precondition.valid_duration.FromNanoseconds(int(seconds * 1e9))
    return precondition


def test_an_absent_map_is_absent_as_a_whole() -> None:
    """The original would answer the second request from the first one's answer (pitfall 15)."""
    cache = CheckCache(10)
    cache.put({"a": "b"}, answer(("request.headers", "", ABSENCE)), 0)
    assert cache.find({"a": "b"}, 0) is not None
    assert cache.find({"a": "b", "request.headers": {"x-user": "mallory"}}, 0) is None
    assert cache.find({"a": "b", "request.headers": {}}, 0) is None


def test_an_entry_of_a_map_counts_alone() -> None:
    cache = CheckCache(10)
    cache.put({"m": {"k": "v", "other": "1"}}, answer(("m", "k", EXACT), ("m", "none", ABSENCE)), 0)
    assert cache.find({"m": {"k": "v", "other": "2"}}, 0) is not None
    for other in ({"m": {"k": "w"}}, {"m": {}}, {}, {"m": "v"}, {"m": {"k": "v", "none": ""}}):
        assert cache.find(other, 0) is None, other


def test_values_of_other_types_are_other_values() -> None:
    cache = CheckCache(10)
    cache.put({"a": 1}, answer(("a", "", EXACT)), 0)
    assert cache.find({"a": 1}, 0) is not None
    assert cache.find({"a": True}, 0) is None
    assert cache.find({"a": 1.0}, 0) is None


@pytest.mark.parametrize(("uses", "seconds", "hits"), [(0, 5, 0), (3, 5, 3), (-1, 5, 50), (-1, 0, 0), (2, None, 2)])
def test_an_answer_is_used_as_often_as_the_server_says(uses: int, seconds: float | None, hits: int) -> None:
    cache = CheckCache(10)
    cache.put({"a": 1}, answer(("a", "", EXACT), uses=uses, seconds=seconds), 0)
    assert sum(cache.find({"a": 1}, 1) is not None for _ in range(50)) == hits
    assert len(cache) == (hits == 50)


def test_an_answer_is_used_as_long_as_the_server_says() -> None:
    """Without a duration it is good for ever."""
    cache = CheckCache(10)
    cache.put({"a": 1}, answer(("a", "", EXACT), seconds=5), 10)
    cache.put({"a": 2}, answer(("a", "", EXACT)), 10)
    assert cache.find({"a": 1}, 14.9) is not None
    assert cache.find({"a": 1}, 15) is None
    assert cache.find({"a": 2}, 1e12) is not None


@pytest.mark.parametrize(
    "references",
    [
        [("a", "", mixer_pb2.ReferencedAttributes.REGEX)],
        [("a", "", mixer_pb2.ReferencedAttributes.CONDITION_UNSPECIFIED)],
        [("missing", "", EXACT)],
        [("a", "", ABSENCE)],
    ],
)
def test_what_cannot_be_compared_is_not_kept(references: list[tuple[str, str, int]]) -> None:
    cache = CheckCache(10)
    cache.put({"a": 1}, answer(*references), 0)
    assert len(cache) == 0


def test_the_least_recently_used_answer_leaves() -> None:
    cache = CheckCache(2)
    for value in (1, 2):
        cache.put({"a": value}, answer(("a", "", EXACT)), 0)
    assert cache.find({"a": 1}, 0) is not None
    cache.put({"a": 3}, answer(("a", "", EXACT)), 0)
    assert [cache.find({"a": value}, 0) is not None for value in (1, 2, 3)] == [True, False, True]


def test_client_and_engine_have_the_same_dictionary() -> None:
    source = Path(__file__).parents[2] / "dataplane/crates/policy/src/dictionary.rs"
    listed = source.read_text().split("pub const WORDS")[1].split("= [")[1].split("];")[0]
    assert tuple(word.replace('\\"', '"') for word in re.findall(r'"((?:[^"\\]|\\.)*)"', listed)) == words.WORDS
    assert words.WORDS[words.BASE] == "'0'"
