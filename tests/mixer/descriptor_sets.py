"""Descriptor sets for tests, made without a compiler of proto files."""

from __future__ import annotations

import base64
from typing import Any

from google.protobuf import descriptor_pb2

from meshwright.api.istio.mixer.adapter.model.v1beta1 import extensions_pb2
from meshwright.mixer.remote.generate.service import service_files
from meshwright.mixer.remote.generate.source import contract
from meshwright.mixer.remote.templates import CHECK_WITH_OUTPUT

Field = descriptor_pb2.FieldDescriptorProto
VALUE = ".istio.policy.v1beta1.Value"


def scalar(name: str, number: int, kind: Any = Field.TYPE_STRING, **given: Any) -> Field:
    return Field(name=name, number=number, type=kind, label=given.pop("label", Field.LABEL_OPTIONAL), **given)


def message(name: str, number: int, type_name: str, **given: Any) -> Field:
    return scalar(name, number, Field.TYPE_MESSAGE, type_name=type_name, **given)


def add_map(target: descriptor_pb2.DescriptorProto, package: str, name: str, number: int, value: Field) -> None:
    entry = target.nested_type.add(name=f"{name.title()}Entry")
    entry.options.map_entry = True
    value.name, value.number = "value", 2
    entry.field.extend([scalar("key", 1), value])
    type_name = f".{package}.{target.name}.{entry.name}"
    target.field.append(message(name, number, type_name, label=Field.LABEL_REPEATED))


def template_source(package: str = "keyval", variety: int = CHECK_WITH_OUTPUT) -> list[Any]:
    """What an author's template.proto compiles to, with each kind of field there is."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    file.dependency.extend(["istio/mixer/adapter/model/v1beta1/extensions.proto", "istio/policy/v1beta1/type.proto"])
    file.options.Extensions[extensions_pb2.template_variety] = variety
    colors = file.enum_type.add(name="Color")
    colors.value.add(name="RED", number=0)
    colors.value.add(name="BLUE", number=1)
    part = file.message_type.add(name="Part")
    part.field.extend([message("any", 1, VALUE), scalar("count", 2, Field.TYPE_SINT64)])
    template = file.message_type.add(name="Template")
    template.field.extend(
        [
            scalar("key", 1),
            message("part", 2, f".{package}.Part"),
            scalar("color", 3, Field.TYPE_ENUM, type_name=f".{package}.Color"),
            message("address", 4, ".istio.policy.v1beta1.IPAddress"),
            scalar("words", 5, label=Field.LABEL_REPEATED),
            message("parts", 6, f".{package}.Part", label=Field.LABEL_REPEATED),
            scalar("ratio", 7, Field.TYPE_DOUBLE),
            scalar("is_new", 8, Field.TYPE_BOOL),
            message("when", 9, ".istio.policy.v1beta1.TimeStamp"),
        ]
    )
    add_map(template, package, "labels", 10, scalar("value", 2))
    add_map(template, package, "anything", 11, message("value", 2, VALUE))
    add_map(template, package, "named", 12, message("value", 2, f".{package}.Part"))
    output = file.message_type.add(name="OutputTemplate")
    output.field.extend([scalar("value", 2), scalar("count", 3, Field.TYPE_INT64)])
    add_map(output, package, "labels", 4, scalar("value", 2))
    known = contract()
    return [*known.values(), file]


def config_source(package: str = "keyval.config") -> list[Any]:
    """A file with a message Params {table: map<string, string>, limit: int32}."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    params = file.message_type.add(name="Params")
    add_map(params, package, "table", 1, scalar("value", 2))
    params.field.append(scalar("limit", 2, Field.TYPE_INT32))
    return [file]


def blob(files: list[Any]) -> bytes:
    return descriptor_pb2.FileDescriptorSet(file=files).SerializeToString()


def text(files: list[Any]) -> str:
    """As documents carry it."""
    return base64.b64encode(blob(files)).decode()


def template_text(package: str = "keyval", variety: int = CHECK_WITH_OUTPUT) -> str:
    return text(service_files(template_source(package, variety)))
