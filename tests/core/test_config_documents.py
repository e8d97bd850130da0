"""core.config: what is read from YAML and JSON, and how faults are told."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from meshwright.core import config, errors
from meshwright.core.config import json_text, yaml_text

SPLIT = b"""\
# a comment
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata:
  name: catalog
  namespace: shop
  labels: {app: catalog}
spec:
  service: catalog
  backends:
  - {service: catalog-v1, weight: 90}
  - {service: catalog-v2, weight: 10}
"""
NAMESPACE = b"apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"


def value(text: str | bytes, limits: config.Limits = config.LIMITS) -> object:
    data = text.encode() if isinstance(text, str) else text
    [(_, _, parsed)] = yaml_text.parse(data, "t.yaml", limits)
    return parsed


def fault(text: str | bytes, name: str = "t.yaml") -> str:
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(config.DocumentError) as caught:
        config.parse(data, name)
    return str(caught.value)


def test_object_has_what_the_document_says() -> None:
    [split] = config.parse(SPLIT, "split.yaml")
    assert split.key == config.Key("split.smi-spec.io/v1alpha4", "TrafficSplit", "shop", "catalog")
    assert split.key.group == "split.smi-spec.io"
    assert (str(split.key), split.source) == ("TrafficSplit shop/catalog", "split.yaml#1")
    assert split.labels == {"app": "catalog"}
    assert split.spec["backends"][1] == {"service": "catalog-v2", "weight": 10}
    assert split.document()["metadata"]["name"] == "catalog"


def test_objects_that_say_the_same_are_equal_wherever_they_stand() -> None:
    [one] = config.parse(NAMESPACE, "a.yaml")
    [other] = config.parse(b'{"kind":"Namespace","metadata":{"name":"shop"},"apiVersion":"v1"}', "b.json")
    assert one == other
    assert len({one, other}) == 1
    assert one.source != other.source
    assert config.from_json(one.json, "store") == one


def test_documents_are_numbered_as_they_stand_in_the_file() -> None:
    text = b"# licence\n---\n" + NAMESPACE + b"---\n---\n" + SPLIT + b"...\n"
    assert [object_.source for object_ in config.parse(text, "all.yaml")] == ["all.yaml#1", "all.yaml#3"]


def test_empty_input_holds_nothing() -> None:
    for text in (b"", b"# nothing\n", b"---\n---\n", b"\xef\xbb\xbf"):
        assert config.parse(text, "empty.yaml") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: yes", {"a": "yes"}),
        ("on: true", {"on": True}),
        ("a: 12:30", {"a": "12:30"}),
        ("a: 2026-11-21", {"a": "2026-11-21"}),
        ("a: 0x1F", {"a": 31}),
        ("a: 0o17", {"a": 15}),
        ("a: -0.5e3", {"a": -500.0}),
        ("a: !!str 12", {"a": "12"}),
        ('a: "12"', {"a": "12"}),
        ("a: |\n  x\n  ---\n", {"a": "x\n---\n"}),
        ("8080: x", {"8080": "x"}),
        ("a: ~\nb:\n", {"a": None, "b": None}),
        ("a: &x [1, 2]\nb: *x", {"a": [1, 2], "b": [1, 2]}),
        ("&k key: 1\nother: *k", {"key": 1, "other": "key"}),
    ],
)
def test_scalars_follow_the_core_schema(text: str, expected: object) -> None:
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        (b"a: 1\nb: [", "t.yaml#1, line 2", "not YAML"),
        (NAMESPACE + b"---\nb: @x", "t.yaml#2, line 5", "not YAML"),
        (b"a: \x00", "t.yaml#1, line 1", "not YAML"),
        (b"a: 1\nb: \xff", "t.yaml, line 2", "not UTF-8"),
        (b"- 1", "t.yaml#1, line 1", "must be a map, not a list"),
        (b"apiVersion: v1\nkind: K\n", "t.yaml#1, line 1", "metadata: is missing"),
        (b"apiVersion: v1\nkind: K\nmetadata: {}", "t.yaml#1", "metadata.name: is missing"),
        (b"apiVersion: 1\nkind: K\nmetadata: {name: a}", "t.yaml#1", "apiVersion: must be text, not the number 1"),
        (b"kind: K\nmetadata: {name: a}", "t.yaml#1", "apiVersion: is missing"),
        (
            b"apiVersion: v1\nkind: K\nmetadata: {name: a, labels: {x: 1}}",
            "t.yaml#1",
            "metadata.labels[x]: must be text",
        ),
        (b"apiVersion: v1\nkind: K\nmetadata: {name: a}\nspec: 3", "t.yaml#1", "spec: must be a map"),
        (b"a: 0644", "line 1", "octal or decimal"),
        (b"a: .nan", "line 1", ".nan isn't a number"),
        (b"a: 1e999", "line 1", "too large"),
        (b"a: 99999999999999999999999", "line 1", "doesn't fit 64 bits"),
        (b"x: &a {b: 1}\ny:\n  <<: *a", "line 3", "merge keys"),
        (b"a: !!binary aGk=", "line 1", "tag"),
        (b"a: !!python/object:os.system x", "line 1", "tag"),
        (b"? [1]\n: 2", "line 1", "a key must be plain text"),
        (b"?\n: 2", "line 1", "nothing can't be a key"),
        (b"a: *nowhere", "line 1", "refers to nothing"),
        (b"a: &x [*x]", "line 1", "refers to nothing"),
    ],
)
def test_faults_name_place_and_reason(text: bytes, place: str, words: str) -> None:
    message = fault(text)
    assert place in message
    assert words in message


def test_duplicate_key_is_refused_with_key_line_and_path() -> None:
    message = fault("apiVersion: v1\nspec:\n  ports:\n  - port: 1\n    name: a\n    port: 2\n")
    assert message == "t.yaml#1, line 6: spec.ports[0].port: the key 'port' occurs twice in one map (keep one)"


def test_eleven_megabytes_are_refused_before_they_are_parsed() -> None:
    """The size is judged from the bytes: no time is spent on the content."""
    data = NAMESPACE + b"---\nx: [" + b"a, " * (11 * 1024 * 1024 // 3) + b"]\n"
    begin = time.process_time()
    message = fault(data)
    assert time.process_time() - begin < 0.5
    assert "t.yaml#2, line 4: the document has 11.0 MiB; at most 1.0 MiB are taken" in message


def test_total_size_is_bounded(tmp_path: Path) -> None:
    limits = config.Limits(total_bytes=1000)
    for number in range(20):
        (tmp_path / f"{number}.yaml").write_bytes(NAMESPACE.replace(b"shop", b"n%d" % number))
    with pytest.raises(errors.ConfigError, match="more than 1000 bytes of configuration"):
        config.read_documents(tmp_path, limits=limits)


def test_billion_laughs_are_refused_quickly() -> None:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    begin = time.process_time()
    assert "more than 100000 values" in fault("\n".join(lines))
    assert time.process_time() - begin < 1.0


def test_long_text_repeated_by_aliases_is_refused() -> None:
    text = f"a: &a {'x' * 1000}\nb: [{', '.join(['*a'] * 2000)}]"
    assert "aliases expand to more than 1.0 MiB" in fault(text)


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "a:\n ", "? "])
def test_deep_nesting_is_refused(opening: str) -> None:
    text = "".join(" " * n + "a:\n" for n in range(200)) if opening == "a:\n " else opening * 100_000
    begin = time.process_time()
    message = fault(text)
    assert "deeper than 64" in message or "plain text" in message or "not YAML" in message
    assert time.process_time() - begin < 2.0


def test_depth_counts_what_aliases_expand_to() -> None:
    chain = "\n".join([f"a0: &a0 [{'[' * 20}{']' * 20}]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 60))])
    assert "deeper than 64" in fault(chain)
    assert value("a: " + "[" * 63 + "]" * 63)


def test_one_key_in_two_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(NAMESPACE)
    (tmp_path / "b.yml").write_bytes(NAMESPACE)
    with pytest.raises(errors.ConfigError, match=r"b\.yml#1: Namespace shop is already in .*a\.yaml#1"):
        config.read_documents(tmp_path)


def test_folder_is_read_in_order_without_hidden_names(tmp_path: Path) -> None:
    """As a mounted ConfigMap looks: links to a hidden folder, each file seen once."""
    hidden = tmp_path / "..2026"
    hidden.mkdir()
    (hidden / "b.yaml").write_bytes(NAMESPACE)
    (tmp_path / "b.yaml").symlink_to(hidden / "b.yaml")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.json").write_text('{"apiVersion":"v1","kind":"K","metadata":{"name":"c"}}')
    (tmp_path / "notes.txt").write_text("not: [read")
    assert [object_.name for object_ in config.read_documents(tmp_path)] == ["shop", "c"]


def test_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigError, match="nowhere: can't be read: No such file"):
        config.read_documents(tmp_path / "nowhere")
    with pytest.raises(errors.ConfigError):
        config.read_documents("a\0b")


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(NAMESPACE)))
    assert config.read_documents("-")[0].source == "stdin#1"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "a": 2}', "'a' occurs twice"),
        ('{"a": NaN}', "NaN isn't a number"),
        ('{"a": 1e999}', "too large"),
        ('{"a": ' + "9" * 10_000 + "}", "doesn't fit 64 bits"),
        ("[" * 100_000, "deeper than 64"),
        ("[" * 65 + "]" * 65, "deeper than 64"),
        ('{"a":\n x}', "line 2: not JSON"),
        ('{"apiVersion":"v1","kind":"K","metadata":{"name":"\\ud800"}}', "surrogate"),
        ("[" + "1," * 100_000 + "1]", "more than 100000 values"),
        ("", "not JSON"),
    ],
)
def test_json_faults(text: str, words: str) -> None:
    assert words in fault(text, "t.json")


@given(st.binary(max_size=400))
@example(b"%YAML 1.1\n---\na: 1")
@example(b"%TAG ! tag:x,2000:\n--- !foo\na: 1")
@example(b"\xff\xfea\x00")
@example(b"a: \xed\xa0\x80")
@example(b'"\\ud800": 1')
@settings(max_examples=400)
def test_arbitrary_bytes_raise_nothing_but_config_errors(data: bytes) -> None:
    for name in ("x.yaml", "x.json"):
        try:
            config.parse(data, name)
        except errors.ConfigError as error:
            assert name in str(error)


@given(st.text(alphabet="ab:-[]{}&*!|>'\"%@`#?,~<.0123 \n\t\r\\/ué\U0001f600", max_size=200))
@settings(max_examples=600)
def test_arbitrary_yaml_like_text_raises_nothing_but_config_errors(text: str) -> None:
    try:
        list(yaml_text.parse(text.encode(), "x.yaml", config.LIMITS))
    except errors.ConfigError as error:
        assert "x.yaml" in str(error)


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029\ufeff"))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
@settings(max_examples=300)
def test_json_round_trip(data: object) -> None:
    assert json_text.parse(json.dumps(data), "x", config.LIMITS) == data


def is_number_only_in_yaml_1_2(data: object) -> bool:
    """Whether a text is in it that PyYAML (YAML 1.1) writes bare and the core schema of 1.2 reads as a number."""
    match data:
        case str():
            return re.fullmatch(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+|0o[0-7]+", data) is not None
        case list():
            return any(map(is_number_only_in_yaml_1_2, data))
        case dict():
            return any(map(is_number_only_in_yaml_1_2, [*data.keys(), *data.values()]))
    return False


@given(st.dictionaries(TEXT, JSON, min_size=1, max_size=5))
@settings(max_examples=300)
def test_what_pyyaml_writes_is_read_back(data: dict[str, object]) -> None:
    """Another writer's YAML, in both styles, means the same here."""
    assume(not is_number_only_in_yaml_1_2(data))
    for flow in (True, False):
        text = yaml.safe_dump(data, default_flow_style=flow, allow_unicode=True)
        assert value(text) == data
