"""What the file of a template says of it, by the contract's extensions of google.protobuf.FileOptions."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2

from meshwright.api.istio.mixer.adapter.model.v1beta1 import extensions_pb2

_VARIETY: Any = extensions_pb2.template_variety
_NAME: Any = extensions_pb2.template_name


def is_template(file: descriptor_pb2.FileDescriptorProto) -> bool:
    """Whether the file says which variety of template it is."""
    return bool(file.options.HasExtension(_VARIETY))


def variety(file: descriptor_pb2.FileDescriptorProto) -> int:
    """The number of its TemplateVariety."""
    return int(file.options.Extensions[_VARIETY])


def given_name(file: descriptor_pb2.FileDescriptorProto) -> str:
    """The name that it says, or nothing."""
    return str(file.options.Extensions[_NAME])


def name(file: descriptor_pb2.FileDescriptorProto) -> str:
    """The template's name: what the file says, or the last part of its package."""
    return given_name(file) or file.package.rpartition(".")[2]
