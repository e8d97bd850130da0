"""`meshwright mixer check`: attributes as people write them, an answer that people can read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from meshwright.api.istio.mixer.v1 import mixer_pb2
from meshwright.core.errors import ConfigError
from meshwright.mixer import check


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("request.path=/admin", "/admin"),
        ("response.code=200", 200),
        ("x=-1.5", -1.5),
        ("connection.mtls=true", True),
        ("response.duration=1.5s", timedelta(seconds=1.5)),
        ("source.ip=10.0.0.1", bytes([10, 0, 0, 1])),
        ("request.time=2026-11-21T12:00:00Z", datetime(2026, 11, 21, 12, tzinfo=UTC)),
        ("source.principal=spiffe://mesh.local/ns/a/sa/b=c", "spiffe://mesh.local/ns/a/sa/b=c"),
        ("empty=", ""),
    ],
)
def test_types_are_guessed_from_how_values_look(text: str, value: object) -> None:
    name, parsed = check.parse_attribute(text)
    assert name == text.partition("=")[0]
    assert parsed == value


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("a=200", "string", "200"),
        ("a=7", "int64", 7),
        ("a=7", "double", 7.0),
        ("a=aGk=", "bytes", b"hi"),
        ("a=k:v,l:w:x", "string_map", {"k": "v", "l": "w:x"}),
        ("a=fd00::1", "ip", bytes([0xFD, *[0] * 14, 1])),
    ],
)
def test_a_type_can_be_named(text: str, kind: str, value: object) -> None:
    assert check.parse_attribute(text, kind)[1] == value


@pytest.mark.parametrize(
    ("text", "kind"),
    [("novalue", None), ("a=x", "int64"), ("a=yes", "bool"), ("a=!", "bytes"), ("a=k", "string_map"), ("a=1", "ip")],
)
def test_what_cannot_be_read_is_an_error(text: str, kind: str | None) -> None:
    with pytest.raises(ConfigError):
        check.parse_attribute(text, kind)


def test_quotas_are_name_and_amount() -> None:
    assert check.parse_quota("requestcount=5") == ("requestcount", 5)
    assert check.parse_quota("requestcount") == ("requestcount", 1)
    with pytest.raises(ConfigError):
        check.parse_quota("requestcount=many")


def test_every_word_is_in_the_message() -> None:
    """Fits any version of the global dictionary: all indices are negative (mixer.md, wire pitfall 2)."""
    values: dict[str, Any] = {"a": "b", "n": 1, "m": {"k": "b"}}
    message = check.request(values, {"q": 2}, best_effort=True, deduplication_id="d")
    attributes = message.attributes
    assert [*attributes.words] == ["a", "b", "n", "m", "k"]
    assert dict(attributes.strings) == {-1: -2}
    assert dict(attributes.int64s) == {-3: 1}
    assert dict(attributes.string_maps[-4].entries) == {-5: -2}
    assert message.quotas["q"].amount == 2
    assert message.quotas["q"].best_effort
    assert message.deduplication_id == "d"
    assert message.global_word_count == 0


def test_an_answer_is_told_as_plain_data() -> None:
    response = mixer_pb2.CheckResponse()
    response.precondition.status.code = 7
    response.precondition.status.message = "no"
    response.precondition.valid_duration.FromMilliseconds(1500)
    response.precondition.valid_use_count = 3
    references = response.precondition.referenced_attributes
    references.words.extend(["request.headers", "x-user"])
    references.attribute_matches.add(name=-1, map_key=-2, condition=mixer_pb2.ReferencedAttributes.ABSENCE)
    response.quotas["q"].granted_amount = 4
    assert check.describe(response) == {
        "code": 7,
        "message": "no",
        "valid_seconds": 1.5,
        "valid_uses": 3,
        "referenced": [{"attribute": 'request.headers["x-user"]', "condition": "absence"}],
        "quotas": {"q": {"granted": 4, "valid": 0.0}},
    }
