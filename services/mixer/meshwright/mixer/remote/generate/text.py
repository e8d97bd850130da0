"""A file's descriptor → the text of a proto file, as far as the files of templates go (proto3, no groups)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf import descriptor_pb2

from meshwright.api.istio.mixer.adapter.model.v1beta1 import extensions_pb2
from meshwright.mixer.remote import options

Message = descriptor_pb2.DescriptorProto
Field = descriptor_pb2.FieldDescriptorProto

_NAMES = {
    Field.TYPE_DOUBLE: "double", Field.TYPE_FLOAT: "float", Field.TYPE_INT64: "int64", Field.TYPE_UINT64: "uint64",
    Field.TYPE_INT32: "int32", Field.TYPE_FIXED64: "fixed64", Field.TYPE_FIXED32: "fixed32", Field.TYPE_BOOL: "bool",
    Field.TYPE_STRING: "string", Field.TYPE_BYTES: "bytes", Field.TYPE_UINT32: "uint32",
    Field.TYPE_SFIXED32: "sfixed32", Field.TYPE_SFIXED64: "sfixed64", Field.TYPE_SINT32: "sint32",
    Field.TYPE_SINT64: "sint64",
}  # fmt: skip
_VARIETIES = extensions_pb2.TemplateVariety


def proto_text(file: descriptor_pb2.FileDescriptorProto, comment: str = "") -> str:
    """The file's text, with a comment in front of it."""
    lines = [*(f"// {line}" for line in comment.splitlines()), 'syntax = "proto3";', ""]
    if file.package:
        lines += [f"package {file.package};", ""]
    lines += [f'import "{name}";' for name in file.dependency]
    if file.dependency:
        lines.append("")
    said = [*_options(file)]
    lines += said + ([""] if said else [])
    for enum in file.enum_type:
        lines += [*_enum(enum, file.package), ""]
    for extension in file.extension:
        lines += [f"extend {_relative(extension.extendee, file.package)} {{"]
        lines += [f"  {_field(extension, file.package)}", "}", ""]
    for service in file.service:
        lines.append(f"service {service.name} {{")
        for method in service.method:
            taken, answered = (_relative(name, file.package) for name in (method.input_type, method.output_type))
            lines.append(f"  rpc {method.name}({taken}) returns ({answered});")
        lines += ["}", ""]
    for message in file.message_type:
        lines += [*_message(message, file.package), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _options(file: descriptor_pb2.FileDescriptorProto) -> Iterator[str]:
    package = "istio.mixer.adapter.model.v1beta1"
    if options.is_template(file):
        yield f"option ({package}.template_variety) = {_VARIETIES.Name(options.variety(file))};"
    if name := options.given_name(file):
        yield f'option ({package}.template_name) = "{name}";'


def _enum(enum: Any, package: str) -> Iterator[str]:
    yield f"enum {enum.name} {{"
    yield from (f"  {value.name} = {value.number};" for value in enum.value)
    yield "}"


def _message(message: Message, package: str) -> Iterator[str]:
    nested = {each.name: each for each in message.nested_type}
    content = [*_indented(_content(message, nested, package))]
    if not content:
        yield f"message {message.name} {{}}"
        return
    yield f"message {message.name} {{"
    yield from content
    yield "}"


def _content(message: Message, nested: dict[str, Message], package: str) -> Iterator[str]:
    for each in message.nested_type:
        if not each.options.map_entry:
            yield from _message(each, package)
    for enum in message.enum_type:
        yield from _enum(enum, package)
    for number, oneof in enumerate(message.oneof_decl):
        members = [f for f in message.field if f.HasField("oneof_index") and f.oneof_index == number]
        if members and not members[0].proto3_optional:
            yield f"oneof {oneof.name} {{"
            yield from _indented(_field(each, package) for each in members)
            yield "}"
    for field in message.field:
        if field.HasField("oneof_index") and not field.proto3_optional:
            continue
        entry = nested.get(field.type_name.rpartition(".")[2]) if field.type == Field.TYPE_MESSAGE else None
        if entry is not None and entry.options.map_entry:
            key, value = (_type(part, package) for part in entry.field)
            yield f"map<{key}, {value}> {field.name} = {field.number};"
        else:
            yield _field(field, package)


def _field(field: Field, package: str) -> str:
    label = "repeated " if field.label == Field.LABEL_REPEATED else "optional " if field.proto3_optional else ""
    return f"{label}{_type(field, package)} {field.name} = {field.number};"


def _type(field: Field, package: str) -> str:
    return _NAMES.get(field.type) or _relative(field.type_name, package)


def _relative(name: str, package: str) -> str:
    """Names of the own package are short, so that people can read them; others stay whole."""
    name = name.removeprefix(".")
    own = name.removeprefix(f"{package}.") if package else name
    return own if own != name or not package else f".{name}" if _is_hidden(name, package) else name


def _is_hidden(name: str, package: str) -> bool:
    """Whether the package, or one around it, begins with the name's first part, which would be looked up there."""
    first = name.partition(".")[0]
    return first in package.split(".")[1:]


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)
