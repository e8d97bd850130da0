"""An author's proto file → descriptors, by the compiler in the native module.

One decision to know: files that were written for the original compile unchanged. Its import paths (`mixer/…`,
`policy/…`) name the same contract as ours (`istio/mixer/…`), and gogoproto's options, which change no byte on the wire,
are left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.rpc import status_pb2

from meshwright.api.istio.mixer.adapter.model.v1beta1 import (
    check_pb2,
    extensions_pb2,
    infrastructure_backend_pb2,
    quota_pb2,
    report_pb2,
)
from meshwright.api.istio.policy.v1beta1 import http_response_pb2, type_pb2, value_type_pb2
from meshwright.dataplane import protos
from meshwright.mixer.remote.descriptors import DescriptorError
from meshwright.mixer.remote.generate.text import proto_text
from meshwright.mixer.remote.templates import files_of

_GOGO = re.compile(
    r'^\s*import\s+"[^"]*gogo\.proto"\s*;|^\s*option\s*\(gogoproto\.[^;]*;|\s*\[\s*\(gogoproto\.[^\]]*\]', re.MULTILINE
)
_ORIGINAL = re.compile(r'^\s*import\s+"(mixer|policy)/', re.MULTILINE)
_ROOT = "istio/"

Files = list[descriptor_pb2.FileDescriptorProto]


def contract(*, original: bool = False) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    """The contract's files by name, dependencies first; `original` gives them the original's paths."""
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    for module in (
        extensions_pb2, check_pb2, quota_pb2, report_pb2, infrastructure_backend_pb2, value_type_pb2, type_pb2,
        http_response_pb2,
    ):  # fmt: skip
        for file in files_of(module.DESCRIPTOR):
            if original:
                file.name = file.name.removeprefix(_ROOT)
                file.dependency[:] = [name.removeprefix(_ROOT) for name in file.dependency]
            files[file.name] = file
    return files


def is_ours(name: str) -> bool:
    """Whether a file is one of the contract's, by either path."""
    return name.removeprefix(_ROOT).startswith(("mixer/adapter/model/", "policy/v1beta1/"))


def compile_proto(path: Path, includes: Sequence[Path]) -> Files:
    """Compile the file with all its imports, itself last; DescriptorError when it can't be."""
    text = path.read_text()
    given = {name: proto_text(file) for name, file in contract(original=bool(_ORIGINAL.search(text))).items()}
    known = {name: each for name, each in given.items() if is_ours(name) or name == status_pb2.DESCRIPTOR.name}
    known[path.name] = _GOGO.sub("", text)
    folders = [str(folder) for folder in (*includes, path.parent)]
    try:
        blob = protos.compile_protos(path.name, known, folders)
    except ValueError as error:
        raise DescriptorError(f"{path}: {error}") from error
    return [*descriptor_pb2.FileDescriptorSet.FromString(blob).file]
