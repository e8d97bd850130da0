"""Templates by their descriptors: which service takes their instances, and which messages it speaks of.

One decision to know: the names of a service's request fields and of the messages InstanceMsg, Type and OutputMsg are
the contract, as in the original; numbers are read from the descriptors.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2

from meshwright.api.policy.v1 import remote_pb2 as pb
from meshwright.mixer.cexl import ValueType
from meshwright.mixer.remote import options
from meshwright.mixer.remote.descriptors import DescriptorError, Descriptors, load
from meshwright.mixer.remote.values import result_type

CHECK, REPORT, QUOTA, ATTRIBUTE_GENERATOR, CHECK_WITH_OUTPUT = range(5)
"""Numbers of istio.mixer.adapter.model.v1beta1.TemplateVariety."""

NAME = 72295727
"""The number of the instance's name in every InstanceMsg."""

_MODEL = "istio.mixer.adapter.model.v1beta1"
_ANSWERS = {CHECK: f"{_MODEL}.CheckResult", QUOTA: f"{_MODEL}.QuotaResult", REPORT: f"{_MODEL}.ReportResult"}
SHIPPED = (
    "apikey", "authorization", "checknothing", "edge", "kubernetes", "listentry", "logentry", "metric", "quota",
    "reportnothing", "tracespan",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RemoteTemplate:
    """`instance`, `types` and `output` are descriptors of messages; `types` or `output` is None where there is none."""

    name: str
    variety: int
    method: str
    request: Mapping[str, int]
    instance: Any
    types: Any
    output: Any
    result_number: int
    output_number: int
    descriptors: Descriptors

    @property
    def instance_field(self) -> int:
        """Number of the request's field that holds the instance, or the instances of a report."""
        return self.request["instances" if self.variety == REPORT else "instance"]

    def output_fields(self) -> list[tuple[Any, tuple[pb.Wire, ValueType]]]:
        """The output's fields that attributes or header operations can have, with their wire forms and types."""
        if self.output is None:
            return []
        found = ((each, result_type(each)) for each in self.output.fields)
        return [(each, form) for each, form in found if form is not None]

    @property
    def outputs(self) -> Mapping[str, ValueType]:
        """Types of the output's fields by name."""
        return {each.name: kind for each, (_, kind) in self.output_fields()}


def template(descriptors: Descriptors) -> RemoteTemplate:
    """Find the template in a set; DescriptorError when there is none, or when it isn't as the contract wants it."""
    file = _main(descriptors)
    variety, name = options.variety(file), options.name(file)
    if variety not in range(5):
        raise DescriptorError(f"{file.name}: template_variety {variety} is unknown: use one of 0 to 4")
    service = next((each for each in file.service if each.name.startswith("Handle") and each.method), None)
    if service is None:
        raise DescriptorError(
            f"{file.name}: no service Handle…Service with a method: give the set of the handler service, "
            "which `meshwright adapter gen` makes of template.proto"
        )
    method = service.method[0]
    request = descriptors.message(method.input_type.removeprefix("."))
    answer = descriptors.message(method.output_type.removeprefix("."))
    numbers = {field.name: field.number for field in request.fields}
    wanted = "instances" if variety == REPORT else "instance"
    if wanted not in numbers or request.fields_by_name[wanted].message_type is None:
        raise DescriptorError(f"{request.full_name}: no field `{wanted}` with the instance's message")
    if variety == QUOTA and "quota_request" not in numbers:
        raise DescriptorError(f"{request.full_name}: no field `quota_request`")
    output, result_number, output_number = _answer(variety, answer)
    package = f"{file.package}." if file.package else ""
    types = next((each.name for each in file.message_type if each.name == "Type"), None)
    return RemoteTemplate(
        name=name,
        variety=variety,
        method=f"/{package}{service.name}/{method.name}",
        request=numbers,
        instance=request.fields_by_name[wanted].message_type,
        types=None if types is None else descriptors.message(f"{package}{types}"),
        output=output,
        result_number=result_number,
        output_number=output_number,
        descriptors=descriptors,
    )


@cache
def shipped(name: str) -> RemoteTemplate | None:
    """One of the templates that mixer knows by itself, by the contract that stands in proto/istio/mixer/template."""
    if name not in SHIPPED:
        return None
    module = importlib.import_module(f"meshwright.api.istio.mixer.template.{name}.template_handler_service_pb2")
    return template(load(files_of(module.DESCRIPTOR)))


def files_of(file: Any) -> list[descriptor_pb2.FileDescriptorProto]:
    """A generated module's file with all that it imports, dependencies first."""
    seen: dict[str, bytes] = {}

    def walk(each: Any) -> None:
        if each.name not in seen:
            for dependency in each.dependencies:
                walk(dependency)
            seen[each.name] = each.serialized_pb

    walk(file)
    return [descriptor_pb2.FileDescriptorProto.FromString(blob) for blob in seen.values()]


def _main(descriptors: Descriptors) -> descriptor_pb2.FileDescriptorProto:
    found = [file for file in descriptors.files if options.is_template(file)]
    if not found:
        raise DescriptorError("no file says (istio.mixer.adapter.model.v1beta1.template_variety): is it a template?")
    return found[-1]


def _answer(variety: int, answer: Any) -> tuple[Any, int, int]:
    """The output's message, and the numbers of `result` and `output` in the answer."""
    if variety == ATTRIBUTE_GENERATOR:
        return answer, 0, 0
    if variety == CHECK_WITH_OUTPUT:
        result, output = (answer.fields_by_name.get(name) for name in ("result", "output"))
        if result is None or output is None or output.message_type is None:
            raise DescriptorError(f"{answer.full_name}: a check with output answers with `result` and `output`")
        return output.message_type, result.number, output.number
    if answer.full_name != _ANSWERS[variety]:
        raise DescriptorError(f"the method answers {answer.full_name}: a template of this variety {_ANSWERS[variety]}")
    return None, 0, 0
