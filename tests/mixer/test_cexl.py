"""The expression language: what it accepts, how it types it, and that its errors help."""

from __future__ import annotations

import pytest
from cexl_strategies import CONDITIONS, NOISE, NUMBERS, STRINGS
from hypothesis import given

from meshwright.mixer.cexl import STANDARD, ExpressionError, ValueType, compile_expression
from meshwright.mixer.cexl.durations import parse_duration
from meshwright.mixer.cexl.parser import MAX_DEPTH, parse
from meshwright.mixer.cexl.syntax import Literal, Operation
from meshwright.mixer.cexl.typed import Apply, Attribute, Constant, Lookup


@given(CONDITIONS)
def test_every_well_typed_condition_compiles(source: str) -> None:
    """The parser and the checker accept whatever the grammar builds."""
    assert compile_expression(source, ValueType.BOOL).type is ValueType.BOOL


@given(STRINGS)
def test_strings_stay_strings(source: str) -> None:
    assert compile_expression(source).type is ValueType.STRING


@given(NUMBERS)
def test_numbers_stay_numbers(source: str) -> None:
    assert compile_expression(source).type is ValueType.INT64


@given(NOISE)
def test_any_text_is_an_expression_or_a_helpful_error(source: str) -> None:
    """Whatever the text, nothing but ExpressionError is raised, with a position in the text and a remedy."""
    try:
        compile_expression(source)
    except ExpressionError as error:
        assert 0 <= error.position <= len(source)
        assert error.reason
        assert error.remedy


def test_precedence_is_gos() -> None:
    """`|` binds tighter than `==`, `==` tighter than `&&`, `&&` tighter than `||`."""
    tree = parse('a | "x" == "y" && b || c')
    assert isinstance(tree, Operation)
    assert tree.operator == "||"
    conjunction = tree.operands[0]
    assert isinstance(conjunction, Operation)
    assert conjunction.operator == "&&"
    comparison = conjunction.operands[0]
    assert isinstance(comparison, Operation)
    assert comparison.operator == "=="
    assert isinstance(comparison.operands[0], Operation)
    assert comparison.operands[0].operator == "|"


def test_the_standard_rule_compiles() -> None:
    source = 'request.url_path.startsWith("/admin") && source.principal == "spiffe://mesh.local/ns/default/sa/mallory"'
    principal = Constant(ValueType.STRING, "spiffe://mesh.local/ns/default/sa/mallory")
    assert compile_expression(source, ValueType.BOOL) == Apply(
        ValueType.BOOL,
        "&&",
        (
            Apply(
                ValueType.BOOL,
                "startsWith",
                (Attribute(ValueType.STRING, "request.url_path"), Constant(ValueType.STRING, "/admin")),
            ),
            Apply(ValueType.BOOL, "==", (Attribute(ValueType.STRING, "source.principal"), principal)),
        ),
    )


def test_a_header_is_looked_up_by_key() -> None:
    headers = Attribute(ValueType.STRING_MAP, "request.headers")
    assert compile_expression('request.headers["X-User"]') == Lookup(
        ValueType.STRING, headers, Constant(ValueType.STRING, "X-User")
    )


def test_text_beside_a_duration_is_a_duration() -> None:
    expression = compile_expression('response.duration > "1m30s"')
    assert isinstance(expression, Apply)
    assert expression.arguments[1] == Constant(ValueType.DURATION, 90_000_000_000)


@pytest.mark.parametrize(
    ("source", "value"),
    [(r'"a\tb\"c"', 'a\tb"c'), (r'"\u00e9\x41"', "éA"), (r"`^\d+$`", r"^\d+$"), ("-12", -12), ("1.5e3", 1500.0)],
)
def test_literals_follow_go(source: str, value: object) -> None:
    node = parse(source)
    assert isinstance(node, Literal)
    assert node.value == value


@pytest.mark.parametrize(
    ("source", "reason", "remedy"),
    [
        ("", "empty expression", "write a condition"),
        ("source.principle == 'x'", "single quotes", "between back quotes"),
        ('source.principle == "x"', "unknown attribute `source.principle`", "did you mean `source.principal`?"),
        ('response.code == "200"', "STRING where INT64 is needed", "type INT64"),
        ('source.ip == "10.0.0.1"', "STRING where IP_ADDRESS is needed", 'ip("…")'),
        ('startsWith(request.path, "/")', "called another way", 'text.startsWith("prefix")'),
        ('request.path.startWith("/")', "unknown function `startWith`", "startsWith"),
        ("request.headers == request.headers", "maps can't be compared", 'map["key"]'),
        ("connection.mtls < connection.mtls", "can't order BOOL", "INT64"),
        ('ip("10.0.0.300") == source.ip', "can't be read", 'ip("10.0.0.1")'),
        ('timestamp("2026-01-01") < request.time', "can't be read", "T15:04:05Z"),
        ("request.path = request.host", "single `=`", "`==`"),
        ("response.code < 1 < 2", "chained comparison", "&&"),
        ("99999999999999999999 == response.code", "number too large", "64 bits"),
        ('request.path.matches("x") || connection.mtls', "must be a literal", '"regular expression"'),
        ('response.duration < "soon"', "not a duration", "250ms"),
        (r'"\q" == request.path', "unknown escape", "back quotes"),
        ("(" * 40 + "connection.mtls" + ")" * 40, "nested too deep", "32"),
        ("connection.mtls" + " && connection.mtls" * 600, "too long", "8192"),
        ("1" + "+1" * 1000, "too large", "1024"),
    ],
)
def test_errors_say_what_is_wrong_and_what_to_do(source: str, reason: str, remedy: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(source, ValueType.BOOL)
    assert reason in caught.value.reason
    assert remedy in caught.value.remedy


def test_an_error_points_at_its_place() -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression('response.code == 200 && source.prinzipal == "x"')
    assert caught.value.position == 24
    assert "character 25" in str(caught.value)
    assert "source.prinzipal" in str(caught.value)


def test_long_chains_are_flat() -> None:
    """Four hundred alternatives are no nesting: a list of allowed paths is a usual rule."""
    assert isinstance(compile_expression(" || ".join(["connection.mtls"] * 400)), Apply)


def test_depth_costs_no_more_than_linear_time() -> None:
    """Nested operands are checked once each, not once a level."""
    source = "(" * (MAX_DEPTH - 1) + "response.code" + " + 1)" * (MAX_DEPTH - 1) + " == 1"
    assert compile_expression(source, ValueType.BOOL).type is ValueType.BOOL


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("1s", 10**9), ("1.5h", 5_400 * 10**9), ("-2ms", -2_000_000), ("1h1m1s", 3661 * 10**9), ("0", 0), ("7", None)],
)
def test_durations_are_written_as_in_go(text: str, nanoseconds: int | None) -> None:
    assert parse_duration(text) == nanoseconds


def test_the_vocabulary_has_mixers_attributes() -> None:
    """A sample of istio's attribute vocabulary with its types."""
    assert STANDARD["request.headers"] is ValueType.STRING_MAP
    assert STANDARD["source.ip"] is ValueType.IP_ADDRESS
    assert STANDARD["response.duration"] is ValueType.DURATION
    assert STANDARD["destination.service.name"] is ValueType.STRING
    assert STANDARD["connection.mtls"] is ValueType.BOOL
