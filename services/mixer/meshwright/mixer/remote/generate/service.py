"""A template's file → the file of its handler service: the messages on the wire, and the method that takes them.

What the template calls `Template` becomes InstanceMsg (values), Type (types of values that are open) and InstanceParam
(expressions); `OutputTemplate` becomes OutputMsg. Names and numbers of what is added are the original's contract.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

from google.protobuf import descriptor_pb2

from meshwright.mixer.remote import options
from meshwright.mixer.remote.descriptors import DescriptorError
from meshwright.mixer.remote.generate.source import Files, contract
from meshwright.mixer.remote.templates import ATTRIBUTE_GENERATOR, CHECK, CHECK_WITH_OUTPUT, NAME, QUOTA, REPORT

BINDINGS = 72295728
_MODEL = "istio.mixer.adapter.model.v1beta1"
_POLICY = "istio.policy.v1beta1"
_VALUE, _VALUE_TYPE = f".{_POLICY}.Value", f".{_POLICY}.ValueType"

Field = descriptor_pb2.FieldDescriptorProto
Message = descriptor_pb2.DescriptorProto
Convert = Callable[[Message, Field], Field | None]


def template_file(files: Files) -> descriptor_pb2.FileDescriptorProto:
    """The file that says template_variety; DescriptorError when none does."""
    found = [file for file in files if options.is_template(file)]
    if not found:
        raise DescriptorError(
            f"no file says `option ({_MODEL}.template_variety) = TEMPLATE_VARIETY_…;`: a template's file must"
        )
    return found[-1]


def service_files(files: Files) -> Files:
    """All files of the handler service, itself last. `files` has the template's and all that it imports."""
    template = template_file(files)
    if any(service.name.startswith("Handle") for service in template.service):
        return files  # the file of a handler service already
    original = any(file.name.startswith("mixer/") for file in files)
    service = _Service(template, "" if original else "istio/").file()
    known = {**contract(original=original), **{file.name: file for file in files if file.name != template.name}}
    return [*(known[name] for name in _needed(service, known)), service]


def _needed(
    file: descriptor_pb2.FileDescriptorProto, known: Mapping[str, descriptor_pb2.FileDescriptorProto]
) -> list[str]:
    """All that the file imports, dependencies first."""
    found: list[str] = []
    for name in file.dependency:
        if name not in known:
            raise DescriptorError(f"lacks the imported file {name}: make the set with all imports (--include_imports)")
        found += [*_needed(known[name], known), name]
    return [*dict.fromkeys(found)]


class _Service:
    def __init__(self, template: descriptor_pb2.FileDescriptorProto, root: str) -> None:
        self._template, self._root = template, root
        self._variety = options.variety(template)
        self._messages = {message.name: message for message in template.message_type}
        self._package = f".{template.package}." if template.package else "."
        if "Template" not in self._messages:
            raise DescriptorError(f"{template.name}: no message `Template`: it names the fields of instances")

    def file(self) -> descriptor_pb2.FileDescriptorProto:
        """The handler service's file."""
        template = self._template
        stem = PurePosixPath(template.name).with_suffix("")
        file = descriptor_pb2.FileDescriptorProto(
            name=f"{stem}_handler_service.proto", package=template.package, syntax="proto3"
        )
        file.options.CopyFrom(template.options)
        for option in ("java_package", "java_outer_classname", "go_package"):
            file.options.ClearField(option)
        file.enum_type.extend(template.enum_type)
        name = _camel(options.name(template))
        file.message_type.append(self._request(name))
        if self._variety == CHECK_WITH_OUTPUT:
            file.message_type.append(_with(Message(name=f"Handle{name}Response"), self._response()))
        if self._variety in (ATTRIBUTE_GENERATOR, CHECK_WITH_OUTPUT):
            if "OutputTemplate" not in self._messages:
                raise DescriptorError(f"{template.name}: no message `OutputTemplate`: this variety puts something out")
            file.message_type.extend(self._tree("OutputTemplate", "OutputMsg", "OutputMsg", self._value))
        instance = self._tree("Template", "InstanceMsg", "Msg", self._value)
        instance[0].field.append(_plain("name", NAME, Field.TYPE_STRING))
        file.message_type.extend(instance)
        file.message_type.extend(self._tree("Template", "Type", "Type", self._type, keep_empty=False))
        parameters = self._tree("Template", "InstanceParam", "InstanceParam", self._parameter)
        if self._variety == ATTRIBUTE_GENERATOR:
            _add_map(parameters[0], f"{self._package}InstanceParam", "attribute_bindings", BINDINGS, _text("value", 2))
        file.message_type.extend(parameters)
        answer = {CHECK: "CheckResult", QUOTA: "QuotaResult", REPORT: "ReportResult"}.get(self._variety)
        service = file.service.add(name=f"Handle{name}Service")
        service.method.add(
            name=f"Handle{name}",
            input_type=f"{self._package}Handle{name}Request",
            output_type=f".{_MODEL}.{answer}" if answer else self._own_answer(name),
        )
        file.dependency.extend(sorted(self._dependencies(file)))
        return file

    def _own_answer(self, name: str) -> str:
        is_generator = self._variety == ATTRIBUTE_GENERATOR
        return f"{self._package}OutputMsg" if is_generator else f"{self._package}Handle{name}Response"

    def _request(self, name: str) -> Message:
        fields = [_reference("instance", 1, f"{self._package}InstanceMsg")]
        if self._variety == REPORT:
            fields = [_reference("instances", 1, f"{self._package}InstanceMsg", repeated=True)]
        fields.append(_reference("adapter_config", 2, ".google.protobuf.Any"))
        fields.append(_plain("dedup_id", 3, Field.TYPE_STRING))
        if self._variety == QUOTA:
            fields.append(_reference("quota_request", 4, f".{_MODEL}.QuotaRequest"))
        return _with(Message(name=f"Handle{name}Request"), fields)

    def _response(self) -> list[Field]:
        return [
            _reference("result", 1, f".{_MODEL}.CheckResult"),
            _reference("output", 2, f"{self._package}OutputMsg"),
        ]

    def _tree(self, source: str, name: str, suffix: str, convert: Convert, *, keep_empty: bool = True) -> list[Message]:
        """A message and those below it, each field converted; the message of the name first."""
        made: dict[str, Message] = {}
        self._convert(source, name, suffix, convert, keep_empty, made, 0)
        return [made[name], *(message for other, message in made.items() if other != name)]

    def _convert(
        self,
        source: str,
        name: str,
        suffix: str,
        convert: Convert,
        keep_empty: bool,
        made: dict[str, Message],
        depth: int,
    ) -> bool:
        """Whether the message has any field."""
        if name in made or depth > 16:
            return True
        given = self._messages[source]
        target = made[name] = Message(name=name)
        for field in given.field:
            entry = _map_value(given, field)
            inner = entry or field
            below = self._below(inner)
            if below is None:
                converted = convert(given, inner)
            else:
                other = f"{below}{suffix}"
                has_fields = self._convert(below, other, suffix, convert, keep_empty, made, depth + 1)
                converted = _reference(inner.name, inner.number, f"{self._package}{other}")
                if not (has_fields or keep_empty):
                    del made[other]
                    converted = None
            if converted is None:
                continue
            if entry is not None:
                _add_map(target, f"{self._package}{name}", field.name, field.number, converted)
                continue
            converted.name, converted.number, converted.label = field.name, field.number, field.label
            target.field.append(converted)
        return bool(target.field)

    def _below(self, field: Field) -> str | None:
        """The template's own message that a field is of."""
        if field.type != Field.TYPE_MESSAGE or not field.type_name.startswith(self._package):
            return None
        name = field.type_name.removeprefix(self._package)
        return name if name in self._messages else None

    def _value(self, message: Message, field: Field) -> Field:
        converted = Field()
        converted.CopyFrom(field)
        for name in ("json_name", "oneof_index", "options", "proto3_optional"):
            converted.ClearField(name)
        return converted

    def _type(self, message: Message, field: Field) -> Field | None:
        if field.type != Field.TYPE_MESSAGE or field.type_name != _VALUE:
            return None
        return Field(name=field.name, number=field.number, type=Field.TYPE_ENUM, type_name=_VALUE_TYPE)

    def _parameter(self, message: Message, field: Field) -> Field:
        return _text(field.name, field.number)

    def _dependencies(self, file: descriptor_pb2.FileDescriptorProto) -> set[str]:
        text = file.SerializeToString()
        model = f"{self._root}mixer/adapter/model/v1beta1"
        found = {"google/protobuf/any.proto", f"{model}/extensions.proto"}
        for mark, name in (
            (".CheckResult", f"{model}/check.proto"),
            (".QuotaResult", f"{model}/quota.proto"),
            (".ReportResult", f"{model}/report.proto"),
            (_VALUE_TYPE, f"{self._root}policy/v1beta1/value_type.proto"),
        ):
            if mark.encode() in text:
                found.add(name)
        found.update(self._template.dependency)  # for its fields
        return found


def _map_value(message: Message, field: Field) -> Field | None:
    """The value's field when it is a map with text as keys."""
    name = field.type_name.rpartition(".")[2]
    for entry in message.nested_type:
        if field.type == Field.TYPE_MESSAGE and entry.name == name and entry.options.map_entry:
            return entry.field[1]
    return None


def _add_map(message: Message, full_name: str, name: str, number: int, value: Field) -> None:
    entry = message.nested_type.add(name="".join(part.title() for part in name.split("_")) + "Entry")
    entry.options.map_entry = True
    entry.field.append(_text("key", 1))
    inner = entry.field.add()
    inner.CopyFrom(value)
    inner.name, inner.number, inner.label = "value", 2, Field.LABEL_OPTIONAL
    message.field.append(_reference(name, number, f"{full_name}.{entry.name}", repeated=True))


def _with(message: Message, fields: list[Field]) -> Message:
    message.field.extend(fields)
    return message


def _plain(name: str, number: int, kind: Any) -> Field:
    return Field(name=name, number=number, type=kind, label=Field.LABEL_OPTIONAL)


def _text(name: str, number: int) -> Field:
    return _plain(name, number, Field.TYPE_STRING)


def _reference(name: str, number: int, type_name: str, *, repeated: bool = False) -> Field:
    label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
    return Field(name=name, number=number, type=Field.TYPE_MESSAGE, type_name=type_name, label=label)


def _camel(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.replace("-", "_").split("_"))
