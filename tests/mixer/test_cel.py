"""CEL: what it accepts, how it types it, what the engine makes of it, and that its errors help."""

from __future__ import annotations

from typing import Any

import pytest
from cel_reference import CONDITIONS, ENVIRONMENT, INTEGERS, NOISE, TEXTS, Expr, NoValueError
from hypothesis import given, settings
from rule_documents import action, document

from meshwright.api.istio.mixer.v1 import mixer_pb2
from meshwright.dataplane.policy import Engine
from meshwright.mixer import check
from meshwright.mixer.cel import compile_cel
from meshwright.mixer.cel.parser import MAX_DEPTH, MAX_NODES
from meshwright.mixer.cexl import ExpressionError, ValueType
from meshwright.mixer.cexl.typed import Apply, Attribute, Constant, Lookup
from meshwright.mixer.config.compiler import compile_policy

DENIED = 7


def holds(source: str, environment: dict[str, Any] | None = None) -> bool:
    """Whether the engine finds the condition true of a request; one that has no value isn't."""
    documents = [
        document("handler", "forbid", {"compiledAdapter": "denier"}),
        document("instance", "nothing", {"compiledTemplate": "checknothing"}),
        document("rule", "r", {"match": source, "language": "CEL", "actions": [action("forbid", "nothing")]}),
    ]
    engine = Engine()
    compiled = compile_policy(documents, {})
    assert not compiled.dropped, compiled.dropped
    engine.load(compiled.policy)
    request = check.request(dict(ENVIRONMENT) if environment is None else environment)
    answer = mixer_pb2.CheckResponse.FromString(engine.check(request.SerializeToString()))
    return bool(answer.precondition.status.code == DENIED)


@settings(max_examples=400)
@given(CONDITIONS)
def test_conditions_hold_as_the_definition_says(condition: Expr) -> None:
    """Precedence, errors on one side of a decided `&&` or `||`, absence, overflow: as a second evaluator has it."""
    try:
        expected = condition.value() is True
    except NoValueError:
        expected = False
    assert holds(condition.text) is expected, condition.text


@given(INTEGERS)
def test_integers_yield_what_they_must(number: Expr) -> None:
    try:
        assert holds(f"({number.text}) == {number.value()}"), number.text
    except NoValueError:
        assert not holds(f"({number.text}) == ({number.text})"), number.text


@given(TEXTS)
def test_text_yields_what_it_must(text: Expr) -> None:
    try:
        assert holds(f'({text.text}) == "{text.value()}"'), text.text
    except NoValueError:
        assert holds(f'default({text.text}, "none at all") == "none at all"'), text.text


@given(NOISE)
def test_any_text_is_an_expression_or_a_helpful_error(source: str) -> None:
    """Whatever the text, nothing but ExpressionError is raised, with a position in the text and a remedy."""
    try:
        compile_cel(source)
    except ExpressionError as error:
        assert 0 <= error.position <= len(source)
        assert error.reason
        assert error.remedy


@pytest.mark.parametrize(
    "source",
    [
        'int("42") == 42 && int(3.9) == 3 && int(-3.9) == -3',
        'int(timestamp("1970-01-01T00:01:00Z")) == 60',
        'double("1.5") + double(1) == 2.5 && 7.0 / 2.0 == 3.5',
        'string(1.5) + string(7) + string(true) == "1.57true"',
        'string(request.time) == "2026-11-21T02:00:00.25Z"',
        'string(duration("1m30s")) == "90s" && duration("1.5h") == duration("90m")',
        'duration(request.headers["wait"]) < duration("1s")',
        'timestamp(request.headers["since"]) + duration("1h") == timestamp("2026-01-01T01:00:00Z")',
        'timestamp("2026-01-02T00:00:00Z") - timestamp("2026-01-01T00:00:00Z") == duration("24h")',
        'request.time - duration("250ms") == timestamp("2026-11-21T02:00:00Z")',
        'size("größe") == 5 && "größe".size() == 5',
        '"Größe".lowerAscii() == "größe" && request.host.lowerAscii() == "shop.demo"',
        r'request.path.matches(r"^/items/\d+$") && matches(request.path, "items")',
        'source.ip == ip("10.1.2.3") && source.ip in [ip("10.1.2.3"), ip("::1")]',
        'cidr("10.1.0.0/16").containsIP(source.ip) && !cidr("10.2.0.0/16").containsIP(source.ip)',
        "has(request.headers.wait) ? true : false",
        "-(-7) == 7 && - - 7 == 7 && !!true",
        "1 + 2 * 3 - 4 / 2 % 3 == 5",
        '"a" + "b" == "ab" && "a" < "b"',
        """'single "quoted"' == "single \\"quoted\\"" && '''triple ' quoted''' == "triple ' quoted" """,
        "request.size > 100 // a comment\n && true",
        "request.headers.wait == '250ms'",
        "9223372036854775807 == 0x7fffffffffffffff",
    ],
)
def test_what_holds(source: str) -> None:
    environment = {
        **ENVIRONMENT,
        **dict(
            [
                check.parse_attribute("source.ip=10.1.2.3", "ip"),
                check.parse_attribute("request.time=2026-11-21T02:00:00.25Z", "timestamp"),
            ]
        ),
        "request.headers": {"wait": "250ms", "since": "2026-01-01T00:00:00Z"},
    }
    assert holds(source, environment)


@pytest.mark.parametrize(
    "source",
    [
        '!(source.principal == "x")',  # an error has no opposite
        'source.principal != "x"',
        'int("7x") == 7 || false',
        "1 / 0 == 1 || 1 % 0 == 1",
        "request.size + 9223372036854775807 > 0",
        'duration(request.path) == duration("1s")',
        "double(request.path) == 1.0",
        'request.headers["none"] == "" || request.headers.none == ""',
        "0.0 / 0.0 == 0.0 / 0.0",
        'timestamp("9999-12-31T23:59:59Z") + duration("1s") > timestamp("2026-01-01T00:00:00Z")',
    ],
)
def test_what_has_no_value_does_not_hold(source: str) -> None:
    assert not holds(source)


def test_a_map_that_is_absent_has_no_keys() -> None:
    """And nobody may take the answer for one about a request that has the map."""
    assert holds('!("x-user" in request.headers) && !has(request.headers.tier)', {"request.path": "/"})


def test_a_path_is_the_longest_name_and_one_key() -> None:
    headers = Attribute(ValueType.STRING_MAP, "request.headers")
    expected = Lookup(ValueType.STRING, headers, Constant(ValueType.STRING, "host"))
    assert compile_cel("request.headers.host") == compile_cel('request.headers["host"]') == expected


def test_conjunctions_are_found_by_their_equalities() -> None:
    """A CEL rule is indexed as a CEXL one is."""
    from meshwright.api.policy.v1 import policy_pb2 as pb

    spec = {"language": "CEL", "actions": [action("forbid", "nothing")]}
    documents = [
        document("handler", "forbid", {"compiledAdapter": "denier"}),
        document("instance", "nothing", {"compiledTemplate": "checknothing"}),
    ]
    match = 'destination.service.name == "shop" && request.path.contains("x")'
    cel = compile_policy([*documents, document("rule", "r", {**spec, "match": match})], {})
    policy = pb.Policy.FromString(cel.policy)
    assert [policy.words[word] for key in policy.rules[0].keys for word in key.equals] == ["shop"]
    assert policy.nodes[policy.rules[0].match].operation == pb.CONTAINS


def test_the_other_language_is_cexl() -> None:
    """A document says which it speaks, and the original kinds speak CEXL."""
    match = '(request.path | "x") == "y"'
    documents = [
        document("handler", "forbid", {"compiledAdapter": "denier"}),
        document("instance", "nothing", {"compiledTemplate": "checknothing"}),
        document("rule", "cexl", {"match": match, "actions": [action("forbid", "nothing")]}),
        document("rule", "cel", {"match": match, "language": "CEL", "actions": [action("forbid", "nothing")]}),
    ]
    dropped = compile_policy(documents, {}).dropped
    assert [each.object.name for each in dropped] == ["cel"]
    assert "single `|`" in dropped[0].message


def test_moments_beyond_what_nanoseconds_reach_are_constants_too() -> None:
    """They had ended the compilation, in both languages."""
    assert holds('request.time < timestamp("9999-12-31T23:59:59Z")', _at("2026-11-21T02:00:00Z"))
    assert holds('timestamp("0001-01-01T00:00:00Z") < request.time', _at("2026-11-21T02:00:00Z"))


def _at(moment: str) -> dict[str, Any]:
    return dict([check.parse_attribute(f"request.time={moment}", "timestamp")])


@pytest.mark.parametrize(
    ("source", "reason", "remedy"),
    [
        ("", "empty expression", "write a condition"),
        ("source.principle == 'x'", "unknown attribute `source.principle`", "did you mean `source.principal`?"),
        ("request == 'x'", "unknown attribute `request`", "the beginning of names such as `request.api_key`"),
        ('response.code == "200"', "`==` between int and string", "string(…) or int(…)"),
        ("response.code == 1.5", "`==` between int and double", "double(…)"),
        ('source.ip == "10.0.0.1"', "`==` between ip and string", 'ip("…")'),
        ('response.duration < "1s"', "`<` between duration and string", 'duration("…")'),
        ('startsWith(request.path, "/")', "called another way", 'text.startsWith("…")'),
        ('request.path.startWith("/")', "unknown function `startWith`", "startsWith"),
        ("request.headers == request.headers", "maps can't be compared", 'map["key"]'),
        ("connection.mtls < connection.mtls", "can't order bool", "numbers, text and times"),
        ('ip("10.0.0.300") == source.ip', "can't be read", 'ip("10.0.0.1")'),
        ('timestamp("2026-01-01") < request.time', "can't be read", "T15:04:05Z"),
        ("request.path = request.host", "single `=`", "`==`"),
        ('request.path | "x" == "y"', "single `|`", "default(value, otherwise)"),
        ("99999999999999999999 == response.code", "number too large", "64 bits"),
        ("7u == response.code", "an unsigned number", "write 7"),
        ('b"x" == request.path', "bytes", "write text"),
        ("request.path == null", "`null`", "has(attribute)"),
        ("request.path.matches(request.host)", "must be a literal", 'text.matches(r"…")'),
        ('"x" in [request.path]', "something else than literals", "`==`, joined by `||`"),
        ("request.path in []", "an empty list", "write what it may be"),
        ("[1, 2] == [1, 2]", "a list where a value is needed", "after `in` only"),
        ("has(request.headers)", "`has` of a whole map", "ask for a key"),
        ('has(request.headers["x"])', "something else than an attribute", '"x-tier" in request.headers'),
        ("request.headers.exists(h, h == 'x')", "`exists` goes through lists", "single values or keys"),
        ('cidr("10.0.0.0/40").containsIP(source.ip)', "no block of addresses", "10.0.0.0/8"),
        ("request.path.host == ''", "has no field `host`", "only maps have fields"),
        ("request.path['x'] == ''", "string has no keys", "only maps have keys"),
        (r'"\q" == request.path', "unknown escape", 'r"…"'),
        ("`x` == request.path", "text between back quotes", 'r"…"'),
        ("import == 1", "reserved word", "attribute"),
        ("request.size", "int where bool is needed", "write a condition"),
        ("true ? 1 : 'x'", "between int and string", "convert"),
        ("(" * 40 + "connection.mtls" + ")" * 40, "nested too deep", "32"),
        ("1" + "+1" * 100 + " == 1", "operators in a row", "brackets"),
        ("!" * 40 + "connection.mtls", "nested too deep", "32"),
        ("connection.mtls" + " && connection.mtls" * 6000, "too long", "65536"),
        (" && ".join(["true"] * (MAX_NODES // 2 + 1)), "too large", str(MAX_NODES)),
        ('"never closed', "without its closing quote", "on one line"),
    ],
)
def test_errors_say_what_is_wrong_and_what_to_do(source: str, reason: str, remedy: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_cel(source, ValueType.BOOL)
    assert reason in caught.value.reason
    assert remedy in caught.value.remedy


def test_long_chains_are_flat() -> None:
    """Four hundred alternatives are no nesting: a list of allowed paths is a usual rule."""
    chain = compile_cel(" || ".join(["connection.mtls"] * 400))
    assert isinstance(chain, Apply)
    assert len(chain.arguments) == 400


def test_depth_costs_no_more_than_linear_time() -> None:
    source = "(" * (MAX_DEPTH - 1) + "response.code" + " + 1)" * (MAX_DEPTH - 1) + " == 1"
    assert compile_cel(source, ValueType.BOOL).type is ValueType.BOOL
