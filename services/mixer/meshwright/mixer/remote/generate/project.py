"""Puts together what `meshwright adapter gen` writes: proto files, documents and the server, in one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import descriptor_pb2

from meshwright.mixer.remote import descriptors, options, templates
from meshwright.mixer.remote.descriptors import DescriptorError
from meshwright.mixer.remote.generate import documents
from meshwright.mixer.remote.generate.service import service_files, template_file
from meshwright.mixer.remote.generate.skeleton import CONTRACT, skeleton
from meshwright.mixer.remote.generate.source import Files, compile_proto, contract
from meshwright.mixer.remote.generate.text import proto_text


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to generate. `template` and `config` are proto files, or descriptor sets where their name says .binpb."""

    template: Path
    config: Path | None
    name: str
    namespace: str
    description: str
    session_based: bool
    includes: Sequence[Path]


def read(path: Path, includes: Sequence[Path]) -> Files:
    """A proto file compiled, or a descriptor set read; DescriptorError."""
    if path.suffix == ".proto":
        return compile_proto(path, [*includes])
    return [*descriptors.read(path.read_bytes()).files]


def generate(wanted: Wanted) -> Mapping[str, str | bytes]:
    """Content by file name."""
    files = service_files(read(wanted.template, wanted.includes))
    file = template_file(files)
    template = templates.template(descriptors.load(files))
    config = None if wanted.config is None else read(wanted.config, wanted.includes)
    name = _document_name(options.name(file))
    out: dict[str, str | bytes] = {f"proto/{each.name}": proto_text(each) for each in files if _is_written(each)}
    for each in contract(original=any(each.name.startswith("mixer/") for each in files)).values():
        if _is_written(each):
            out[f"proto/{each.name}"] = proto_text(each)
    comment = f"The service that adapters of template {template.name} implement.\nMade by `meshwright adapter gen`."
    out[f"proto/{file.name}"] = proto_text(file, comment)
    out["template.yaml"] = documents.template_document(name, wanted.namespace, files)
    out["adapter.yaml"] = documents.adapter_document(
        wanted.name,
        wanted.namespace,
        wanted.description,
        [f"{name}.{wanted.namespace}"],
        config,
        session_based=wanted.session_based,
    )
    parts = skeleton(wanted.name, template, None if config is None else _parameters(config))
    out["adapter.py"], out["server.py"], out["contract.py"] = parts.adapter, parts.server, parts.contract
    out[CONTRACT] = documents.descriptor_set(_merged(files, config or []))
    return out


def _merged(files: Files, config: Files) -> Files:
    """One set for the server: the template's, the parameters', and the service of sessions."""
    original = any(each.name.startswith("mixer/") for each in [*files, *config])
    by_name = {each.name: each for each in [*contract(original=original).values(), *files, *config]}
    return [*descriptors.load(by_name.values()).files]


def _parameters(config: Files) -> str:
    for file in reversed(config):
        if any(message.name == "Params" for message in file.message_type):
            return f"{file.package}.Params" if file.package else "Params"
    raise DescriptorError("the configuration's file has no message Params: it names a handler's parameters")


def _is_written(file: descriptor_pb2.FileDescriptorProto) -> bool:
    """Google's files come with every protoc."""
    return not file.name.startswith("google/")


def _document_name(template: str) -> str:
    return template.lower().replace("_", "-")
