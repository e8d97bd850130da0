"""Descriptor sets as configuration carries them: base64 of a FileDescriptorSet with all imports.

One decision to know: each set is read into a pool of its own, so that two adapters may bring different files of the
same name, and none can change what this process knows.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from google.protobuf import (
    any_pb2,
    api_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from meshwright.api.istio.mixer.adapter.model.v1beta1 import extensions_pb2

MAX_BYTES = 1 << 20
MAX_FILES = 256

# What a set may leave out. Its own copies count where it has them.
_COMMON = {
    file.DESCRIPTOR.name: file.DESCRIPTOR.serialized_pb
    for file in (
        any_pb2, api_pb2, descriptor_pb2, duration_pb2, empty_pb2, struct_pb2, timestamp_pb2, wrappers_pb2, status_pb2,
    )
}  # fmt: skip

assert extensions_pb2.template_variety is not None  # its import lets file options be read


class DescriptorError(ValueError):
    """A descriptor set that can't be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Descriptors:
    """The files of a set, dependencies first, and the pool that they are in."""

    files: tuple[descriptor_pb2.FileDescriptorProto, ...]
    pool: descriptor_pool.DescriptorPool

    def message(self, name: str) -> Any:
        """The descriptor of a message by its full name."""
        return self.pool.FindMessageTypeByName(name)


def decode(text: str) -> Descriptors:
    """Read base64; DescriptorError when it isn't a usable set."""
    if len(text) > MAX_BYTES * 4 // 3 + 4:
        raise DescriptorError(f"longer than {MAX_BYTES} bytes: leave out files that the messages don't need")
    try:
        blob = base64.b64decode("".join(text.split()), validate=True)
    except ValueError as error:  # what isn't ASCII is one, too
        raise DescriptorError(f"not base64 ({error}): write it with `meshwright adapter gen`") from error
    return read(blob)


def read(blob: bytes) -> Descriptors:
    """Read a FileDescriptorSet in its bytes."""
    try:
        given = descriptor_pb2.FileDescriptorSet.FromString(blob)
    except DecodeError as error:
        raise DescriptorError("not a FileDescriptorSet: write it with `meshwright adapter gen`") from error
    if not given.file:
        raise DescriptorError("holds no file: write it with `meshwright adapter gen`")
    if len(given.file) > MAX_FILES:
        raise DescriptorError(f"holds {len(given.file)} files, at most {MAX_FILES} are read")
    return load(given.file)


def load(given: Iterable[descriptor_pb2.FileDescriptorProto]) -> Descriptors:
    """Put files into a pool of their own, whatever their order."""
    files = {file.name: file for file in given}
    ordered: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    pool = descriptor_pool.DescriptorPool()
    for name in [*files]:
        _add(name, files, ordered, pool, ())
    return Descriptors(tuple(ordered.values()), pool)


def _add(
    name: str,
    files: dict[str, descriptor_pb2.FileDescriptorProto],
    ordered: dict[str, descriptor_pb2.FileDescriptorProto],
    pool: descriptor_pool.DescriptorPool,
    above: tuple[str, ...],
) -> None:
    if name in ordered:
        return
    if name in above:
        raise DescriptorError(f"{name} imports itself")
    file = files.get(name)
    if file is None:
        if name not in _COMMON:
            raise DescriptorError(f"lacks the imported file {name}: make the set with all imports (--include_imports)")
        file = descriptor_pb2.FileDescriptorProto.FromString(_COMMON[name])
    for dependency in file.dependency:
        _add(dependency, files, ordered, pool, (*above, name))
    try:
        pool.AddSerializedFile(file.SerializeToString())
    except TypeError as error:
        reason = str(error).partition("\n")[0]
        raise DescriptorError(f"{name}: {reason}") from error
    ordered[name] = file
