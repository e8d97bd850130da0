"""One configuration after the other: what is kept from the one before changes the cost, and never the result."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rule_documents import action, document

from meshwright.api.istio.mixer.v1 import mixer_pb2
from meshwright.core.config import Object
from meshwright.dataplane.policy import Engine
from meshwright.mixer import check
from meshwright.mixer.cexl import ValueType
from meshwright.mixer.config import expressions
from meshwright.mixer.config.loader import PolicyLoader

HANDLERS = [
    {"compiledAdapter": "denier", "params": {"status": {"code": 7}}},
    {"compiledAdapter": "denier", "params": {"status": {"code": 9}}},
    {"compiledAdapter": "denier", "params": {"status": {"code": 14}}},  # at fault
    {"compiledAdapter": "listchecker", "params": {"overrides": ["/a", "/b"], "blacklist": True}},
    {"compiledAdapter": "listchecker", "params": {"overrides": ["("], "entryType": "REGEX"}},  # the engine's to refuse
]
INSTANCES = [
    {"compiledTemplate": "checknothing"},
    {"compiledTemplate": "listentry", "params": {"value": 'request.path | "none"'}},
    {"compiledTemplate": "listentry", "params": {"value": "tenant.id"}},
]
MATCHES = [
    'request.path == "/a"',
    'request.path.startsWith("/")',
    'tenant.id == "t"',
    'tenant.id == 7 || request.path == "/b"',
    '"(".matches(request.path)',  # the engine's to refuse
    "nonsense",
]
MANIFESTS = [{"attributes": {"tenant.id": {"valueType": kind}}} for kind in ("STRING", "INT64")]
REQUESTS: list[dict[str, Any]] = [
    {},
    {"request.path": "/a"},
    {"request.path": "/b"},
    {"request.path": "/a", "tenant.id": "t"},
]

_RULES = st.builds(
    lambda name, match, handler, instance: document(
        "rule", name, {"match": match, "actions": [action(handler, instance)]}
    ),
    st.sampled_from(["r1", "r2", "r3"]),
    st.sampled_from(MATCHES),
    st.sampled_from(["h1", "h2"]),
    st.sampled_from(["i1", "i2"]),
)
_CHANGES = st.one_of(
    _RULES,
    _RULES,
    st.builds(
        lambda name, spec: document("handler", name, spec), st.sampled_from(["h1", "h2"]), st.sampled_from(HANDLERS)
    ),
    st.builds(
        lambda name, spec: document("instance", name, spec), st.sampled_from(["i1", "i2"]), st.sampled_from(INSTANCES)
    ),
    st.builds(lambda spec: document("attributemanifest", "m", spec), st.sampled_from(MANIFESTS)),
)
_STEPS = st.lists(st.tuples(_CHANGES, st.booleans()), min_size=1, max_size=12)


def decisions(engine: Engine) -> list[Any]:
    """What an engine makes of the requests; a request of a wrong type is answered as such."""
    result: list[Any] = []
    for request in REQUESTS:
        try:
            answer = engine.check(check.request(request).SerializeToString())
        except ValueError as error:
            result.append(str(error))
        else:
            status = mixer_pb2.CheckResponse.FromString(answer).precondition.status
            result.append((status.code, status.message))
    return result


@given(_STEPS)
def test_any_row_of_changes_ends_where_a_fresh_start_does(steps: list[tuple[Object, bool]]) -> None:
    start = [
        *(document("handler", name, HANDLERS[0]) for name in ("h1", "h2")),
        *(document("instance", name, INSTANCES[0]) for name in ("i1", "i2")),
        document("attributemanifest", "m", MANIFESTS[0]),
    ]
    documents = {each.key: each for each in start}
    engine = Engine()
    loader = PolicyLoader({}, engine.load, export=False)
    for change, is_deleted in steps:
        if is_deleted:
            documents.pop(change.key, None)
        else:
            documents[change.key] = change
        kept = loader.load([*documents.values()])
        other = Engine()
        fresh = PolicyLoader({}, other.load, export=False).load([*documents.values()])
        assert sorted(map(str, kept.dropped)) == sorted(map(str, fresh.dropped))
        assert sorted(map(str, kept.warnings)) == sorted(map(str, fresh.warnings))
        assert kept.rules == fresh.rules
        assert decisions(engine) == decisions(other)


def test_a_change_compiles_what_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two thousand rules: one expression, and one part of the policy."""
    documents = [
        document("handler", "h1", HANDLERS[0]),
        document("instance", "i1", INSTANCES[0]),
        *(
            document("rule", f"r{number}", {"match": f'request.path == "/{number}"', "actions": [action("h1", "i1")]})
            for number in range(2_000)
        ),
    ]
    compiled: list[str] = []
    original = expressions.compile_expression

    def counted(source: str, *given: Any) -> Any:
        compiled.append(source)
        return original(source, *given)

    monkeypatch.setattr(expressions, "compile_expression", counted)
    loader = PolicyLoader({}, Engine().load, export=False)
    assert loader.load(documents).rules == 2_000
    assert len(compiled) == 2_000
    for match, again in (('request.path == "/new"', 1), ('request.path == "/7"', 0)):
        compiled.clear()
        documents[500] = document("rule", "r498", {"match": match, "actions": [action("h1", "i1")]})
        assert loader.load(documents).rules == 2_000
        assert len(compiled) == again
    compiled.clear()
    documents[0] = document("handler", "h1", HANDLERS[1])
    assert loader.load(documents).rules == 2_000
    assert compiled == []  # texts are the same: only the parts are put together anew


def test_what_is_of_no_use_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules that change for ever don't fill the memory."""
    monkeypatch.setattr("meshwright.mixer.config.compiler._SPARE", 50)
    documents = [document("handler", "h1", HANDLERS[0]), document("instance", "i1", INSTANCES[0])]
    loader = PolicyLoader({}, Engine().load, export=False)
    sizes = []
    for number in range(400):
        rule = document("rule", "r", {"match": f"response.code == {number}", "actions": [action("h1", "i1")]})
        sizes.append(len(loader.load([*documents, rule]).policy))
    assert max(sizes) < 20 * sizes[0]


def test_bindings_of_generators_are_forgotten_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are compiled with each configuration, as no request's attributes are in them."""
    monkeypatch.setattr("meshwright.mixer.config.compiler._SPARE", 50)
    bindings = {name: f'$out.source_{name.partition(".")[2]} | "none"' for name in ("source.namespace", "source.owner")}
    spec = {"compiledTemplate": "kubernetes", "attributeBindings": bindings}
    loader = PolicyLoader({}, Engine().load, export=False)
    for _ in range(200):
        assert not loader.load([document("instance", "pods", spec)]).dropped
    assert len(loader._compiler._nodes) < 200  # what it keeps is seen nowhere else


def test_expressions_are_told_apart_by_the_type_that_is_asked_for() -> None:
    kept = expressions.Expressions({"a.b": ValueType.DURATION})
    assert kept.compile('"1s"', ValueType.DURATION).type is ValueType.DURATION
    assert kept.compile('"1s"', None).type is ValueType.STRING
    assert kept.compile('"1s"', None) is kept.compile('"1s"', None)


def test_all_bad_patterns_are_found_together() -> None:
    """The engine names one fault at a time; forty of them don't cost forty compilations."""
    start = [document("handler", "h1", HANDLERS[0]), document("instance", "i1", INSTANCES[0])]
    bad = [
        document("rule", f"r{number}", {"match": f'"({number}".matches(request.path)', "actions": [action("h1", "i1")]})
        for number in range(40)
    ]
    good = document("rule", "good", {"match": '"^/a$".matches(request.path)', "actions": [action("h1", "i1")]})
    engine = Engine()
    large: list[int] = []

    def load(policy: bytes) -> None:
        large.append(len(policy) > 300)
        engine.load(policy)

    compiled = PolicyLoader({}, load, export=False).load([*start, *bad, good])
    assert compiled.rules == 1
    assert len(compiled.dropped) == 40
    assert all("unclosed group" in each.message and each.field == "spec.match" for each in compiled.dropped)
    assert sum(large) <= 2
    assert [each[0] for each in decisions(engine)] == [0, 7, 0, 7]
