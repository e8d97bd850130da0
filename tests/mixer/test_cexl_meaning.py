"""What expressions mean: the engine against a reference in Python, the parser against a writer, and each error."""

from __future__ import annotations

from typing import Any

import pytest
from cexl_reference import AbsentError, UnfitError, evaluate
from cexl_trees import CONDITIONS, MANIFEST, REQUESTS, TREES, bare, write
from hypothesis import example, given
from rule_documents import action, document

from meshwright.api.istio.mixer.v1 import mixer_pb2
from meshwright.dataplane.policy import Engine
from meshwright.mixer import check
from meshwright.mixer.cexl import STANDARD, ExpressionError, ValueType, compile_expression
from meshwright.mixer.cexl.parser import parse
from meshwright.mixer.config.compiler import compile_policy

VOCABULARY = {**STANDARD, **MANIFEST}
HOLDS, FAILS, NOTHING = 7, 5, 0
ENGINE = Engine()


def decided(source: str, request: dict[str, Any]) -> int:
    """What the engine makes of a condition: two rules, one for its truth and one for its opposite."""
    attributes = {name: {"valueType": kind.name} for name, kind in MANIFEST.items()}
    documents = [
        document("attributemanifest", "tenants", {"attributes": attributes}),
        document("instance", "nothing", {"compiledTemplate": "checknothing"}),
    ]
    for code, match in ((HOLDS, source), (FAILS, f"!({source})")):
        documents += [
            document("handler", f"h{code}", {"compiledAdapter": "denier", "params": {"status": {"code": code}}}),
            document("rule", f"r{code}", {"match": match, "actions": [action(f"h{code}", "nothing")]}),
        ]
    compiled = compile_policy(documents, {})
    assert not compiled.dropped, compiled.dropped
    ENGINE.load(compiled.policy)
    answer = ENGINE.check(check.request(request).SerializeToString())
    return int(mixer_pb2.CheckResponse.FromString(answer).precondition.status.code)


def meant(source: str, request: dict[str, Any]) -> int:
    """What the reference makes of it."""
    try:
        truth = evaluate(compile_expression(source, ValueType.BOOL, VOCABULARY), request)
    except (AbsentError, UnfitError):
        return NOTHING
    return HOLDS if truth else FAILS


@given(CONDITIONS, REQUESTS)
@example("(tenant.discount + 1e308 + -1e308 + -1e308) > 1.0", {"tenant.discount": 1e308})
@example('timestamp("9999-12-31T23:59:59Z") > request.time', {})
def test_the_engine_decides_as_the_reference(source: str, request: dict[str, Any]) -> None:
    assert decided(source, request) == meant(source, request)


@given(TREES)
def test_what_is_written_is_read_back(tree: Any) -> None:
    assert bare(parse(write(tree))) == bare(tree)


@pytest.mark.parametrize(
    ("source", "request_", "result"),
    [
        # Absent: caught by `|` however deep it is, and by nothing else.
        ('request.path == "/"', {}, NOTHING),
        ('(request.path | "/") == "/"', {}, HOLDS),
        ('(request.headers["a"] | request.path | "/") == "/"', {}, HOLDS),
        ('(toLower(request.path) | "none") == "none"', {}, HOLDS),
        ('request.headers["a"] == "x"', {"request.headers": {"b": "x"}}, NOTHING),
        ('(request.headers | emptyStringMap())["a"] == "x"', {}, NOTHING),
        ('((request.headers | emptyStringMap())["a"] | "x") == "x"', {}, HOLDS),
        # What the left side decides the right side isn't read for.
        ('true || request.path == "/"', {}, HOLDS),
        ('false && request.path == "/"', {}, FAILS),
        ('request.path == "/" || true', {}, NOTHING),
        ("conditional(true, 1, response.code) == 1", {}, HOLDS),
        # A conversion that fails isn't an absent attribute: `|` doesn't catch it.
        ('(ip(request.path) | ip("10.0.0.1")) == ip("10.0.0.1")', {"request.path": "nonsense"}, NOTHING),
        ('(ip(request.path) | ip("10.0.0.1")) == ip("10.0.0.1")', {}, HOLDS),
        ("timestamp(request.path) < request.time", {"request.path": "2026-01-02"}, NOTHING),
        ('dnsName(request.host) == dnsName("x.mesh")', {"request.host": "X.Mesh."}, HOLDS),
        ('dnsName(request.host) == dnsName("x.mesh")', {"request.host": "a..b"}, NOTHING),
        ('email(request.host) == email("ann@x.org")', {"request.host": "ann@X.ORG"}, HOLDS),
        ('email(request.host) == email("ann@x.org")', {"request.host": "Ann@x.org"}, FAILS),
        ('uri(request.host) == uri("http://x/A")', {"request.host": "HTTP://X/A"}, HOLDS),
        ('uri(request.host) == uri("http://x/A")', {"request.host": ""}, NOTHING),
        # As in Go.
        ("response.code + 1 < 0", {"response.code": 2**63 - 1}, HOLDS),
        ('size("é") == 2', {}, HOLDS),
        ('"a" < "b" == true', {}, HOLDS),
        ('match(request.path, "*")', {"request.path": ""}, HOLDS),
        ('source.ip == ip("10.0.0.1")', {"source.ip": bytes(10) + b"\xff\xff\x0a\0\0\x01"}, HOLDS),
        ('"^/a".matches(request.path)', {"request.path": "/b/a"}, FAILS),
        ("1.5 < tenant.discount && tenant.discount < 2", {"tenant.discount": 1.75}, HOLDS),
    ],
)
def test_what_expressions_make_of_requests(source: str, request_: dict[str, Any], result: int) -> None:
    assert decided(source, request_) == result
    assert meant(source, request_) == result


@pytest.mark.parametrize(
    "source",
    [
        'ip("10.0.0.1.2") == source.ip',
        'ip("fe80::1%eth0") == source.ip',
        'timestamp("20260102T150405Z") < request.time',
        'timestamp("2026-01-02 15:04:05Z") < request.time',
        'timestamp("2026-02-30T15:04:05Z") < request.time',
        'dnsName("a..b") == tenant.domain',
        'email("nobody") == tenant.owner',
        'uri("with blank") == tenant.home',
    ],
)
def test_a_literal_that_cannot_be_converted_is_an_error_at_once(source: str) -> None:
    with pytest.raises(ExpressionError, match="can't be read"):
        compile_expression(source, ValueType.BOOL, VOCABULARY)


def test_requests_of_the_wrong_type_are_errors_not_decisions() -> None:
    """A string where a map is expected, an address of three bytes."""
    for source, request in (
        ('request.headers["a"] == "x"', {"request.headers": "a"}),
        ('source.ip == ip("10.0.0.1")', {"source.ip": b"abc"}),
    ):
        with pytest.raises(ValueError, match=r"request\.headers|source\.ip"):
            decided(source, request)
