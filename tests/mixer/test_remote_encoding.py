"""Instances against a template's descriptor: what is written stands as its message says, and faults have names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import descriptor_sets
import pytest
from google.protobuf import any_pb2, message_factory
from pydantic.alias_generators import to_snake

from meshwright.mixer.cexl import ExpressionError, ValueType, compile_expression
from meshwright.mixer.remote import descriptors, templates, wire
from meshwright.mixer.remote.encoding import encode
from meshwright.mixer.remote.handlers import adapter_config, read_template
from meshwright.mixer.templates import TEMPLATES

KEYVAL = read_template(descriptor_sets.template_text())


def plan(template: Any, parameters: dict[str, Any], faults: list[tuple[str, str]] | None = None) -> Any:
    found: list[tuple[str, str]] = []

    def evaluate(name: str, path: Any, source: str, types: frozenset[ValueType]) -> ValueType | None:
        try:
            kind = compile_expression(source, next(iter(types)) if len(types) == 1 else None).type
        except ExpressionError as error:
            found.append((".".join(map(str, path)), str(error)))
            return None
        assert kind in types
        return kind

    def refuse(path: Any, message: str) -> None:
        found.append((".".join(map(str, path)), message))

    result = encode(template, "x.instance.shop", parameters, evaluate, refuse)
    if faults is None:
        assert not found
    else:
        faults += found
    return result


def sent(template: Any, parameters: dict[str, Any], **fields: Any) -> Any:
    """The message that arrives, with fields' values by name (two underscores for a dot)."""
    given = {name.replace("__", "."): value for name, value in fields.items()}
    encoded = wire.instance(plan(template, parameters), given)
    _, service, method = template.method.split("/")
    found = template.instance.file.pool.FindServiceByName(service).FindMethodByName(method)
    return message_factory.GetMessageClass(found.input_type).FromString(encoded).instance


def test_every_kind_of_field_arrives() -> None:
    parameters = {
        "key": "request.path",
        "part": {"any": "source.ip", "count": "request.size"},
        "color": "BLUE",
        "address": "source.ip",
        "words": ['"a"', "request.method"],
        "parts": [{"count": 5}, {"any": '"x"'}],
        "ratio": 0.5,
        "isNew": True,
        "when": "request.time",
        "labels": "source.labels",
        "anything": {"size": "request.size", "name": "source.name"},
        "named": {"one": {"any": "response.duration"}},
    }
    message = sent(
        KEYVAL,
        parameters,
        key="/x",
        part__any=ip_address("10.0.0.1"),
        part__count=-3,
        address=ip_address("2001:db8::1"),
        words__0="a",
        words__1="GET",
        parts__0__count=5,
        parts__1__any="x",
        ratio=0.5,
        is_new=True,
        when=datetime(2026, 1, 2, 3, 4, 5, 6, UTC),
        labels={"app": "shop", "tier": "web"},
        anything__size=7,
        anything__name="n",
        named__one__any=timedelta(milliseconds=-1500),
    )
    assert message.name == "x.instance.shop"
    assert (message.key, message.color, message.ratio, message.is_new) == ("/x", 1, 0.5, True)
    assert message.part.any.ip_address_value.value == ip_address("10.0.0.1").packed
    assert message.part.count == -3
    assert message.address.value == ip_address("2001:db8::1").packed
    assert [*message.words] == ["a", "GET"]
    assert [part.count for part in message.parts] == [5, 0]
    assert message.parts[1].any.string_value == "x"
    assert message.when.value.ToDatetime(UTC) == datetime(2026, 1, 2, 3, 4, 5, 6, UTC)
    assert dict(message.labels) == {"app": "shop", "tier": "web"}
    assert message.anything["size"].int64_value == 7
    assert message.anything["name"].string_value == "n"
    assert message.named["one"].any.duration_value.value.ToTimedelta() == timedelta(milliseconds=-1500)


def test_what_has_no_value_is_left_out_with_its_entry() -> None:
    message = sent(
        KEYVAL, {"key": "request.path", "anything": {"a": "source.name", "b": "request.size"}}, anything__b=1
    )
    assert message.key == ""
    assert [*message.anything] == ["b"]


@pytest.mark.parametrize("name", templates.SHIPPED)
def test_shipped_templates_are_those_that_mixer_has(name: str) -> None:
    template, known = templates.shipped(name), TEMPLATES[name]
    assert template is not None
    assert known.variety.name == ("CHECK", "REPORT", "QUOTA", "ATTRIBUTE_GENERATOR")[template.variety]
    assert template.name == name
    fields = {to_snake(field.name): field for field in template.instance.fields}
    for each in known.schema:
        inside = fields
        for part in each.name.split("."):
            assert part in inside, f"{name} has no field {each.name}"
            below = inside[part].message_type
            inside = {} if below is None else {field.name: field for field in below.fields}
    assert set(template.outputs) == set(known.outputs)
    assert all(template.outputs[field] == kind for field, kind in known.outputs.items())


def test_inferred_types_are_those_of_the_expressions() -> None:
    compiled = plan(KEYVAL, {"key": "source.name", "part": {"any": "source.ip"}, "anything": {"a": "request.size"}})
    packed = any_pb2.Any.FromString(compiled.inferred_types)
    assert packed.type_url == "type.googleapis.com/keyval.Type"
    types = message_factory.GetMessageClass(KEYVAL.types).FromString(packed.value)
    assert types.part.any == ValueType.IP_ADDRESS
    assert dict(types.anything) == {"a": ValueType.INT64}


@pytest.mark.parametrize(
    ("parameters", "where", "reason"),
    [
        ({"kee": "x"}, "kee", "unknown field"),
        ({"key": {"a": 1}}, "key", "must be an expression"),
        ({"part": "source.name"}, "part", "must be a mapping"),
        ({"words": "source.name"}, "words", "must be a list"),
        ({"color": "GREEN"}, "color", "use one of RED, BLUE"),
        ({"labels": 5}, "labels", "must be a mapping"),
        ({"anything": {5: "source.name"}}, "anything.5", "not a key"),
        ({"key": "request.size"}, "key", "STRING"),
        ({"isNew": "true", "is_new": "true"}, "is_new", "once more"),
        ({"key": "no.such"}, "key", "no.such"),
    ],
)
def test_faults_name_the_field(parameters: dict[str, Any], where: str, reason: str) -> None:
    faults: list[tuple[str, str]] = []
    plan(KEYVAL, parameters, faults)
    assert len(faults) == 1, faults
    assert faults[0][0] == where
    assert reason in faults[0][1]


def test_parameters_become_the_adapters_message() -> None:
    text = descriptor_sets.text(descriptor_sets.config_source())
    packed = any_pb2.Any.FromString(adapter_config(text, {"table": {"a": "b"}, "limit": 3}))
    assert packed.type_url == "type.googleapis.com/keyval.config.Params"
    params = descriptors.decode(text).message("keyval.config.Params")
    message = message_factory.GetMessageClass(params).FromString(packed.value)
    assert (dict(message.table), message.limit) == ({"a": "b"}, 3)


@pytest.mark.parametrize(("given", "reason"), [({"limit": "many"}, "limit"), ({"lim": 1}, "lim")])
def test_parameters_that_do_not_fit_are_refused(given: dict[str, Any], reason: str) -> None:
    text = descriptor_sets.text(descriptor_sets.config_source())
    with pytest.raises(ValueError, match=reason):
        adapter_config(text, given)
    with pytest.raises(ValueError, match="takes no parameters"):
        adapter_config("", given)


def test_unusable_sets_say_what_to_do() -> None:
    source = descriptor_sets.template_source()
    for text, reason in (
        ("§", "not base64"),
        ("AAAA", "FileDescriptorSet"),
        ("", "holds no file"),
        (descriptor_sets.text(source), "no service Handle"),
        (descriptor_sets.text(source[-1:]), "lacks the imported file"),
        (descriptor_sets.text(descriptor_sets.config_source()), "template_variety"),
        ("A" * (2 << 20), "longer than"),
    ):
        with pytest.raises(descriptors.DescriptorError, match=reason):
            read_template(text)
