"""The documents that bring a template and an adapter into the mesh, as YAML."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from google.protobuf import descriptor_pb2

from meshwright.mixer.remote.generate.source import Files


def descriptor_set(files: Files) -> bytes:
    """The files in one set, without what only tools read."""
    kept = []
    for file in files:
        copy = descriptor_pb2.FileDescriptorProto()
        copy.CopyFrom(file)
        copy.ClearField("source_code_info")
        kept.append(copy)
    return descriptor_pb2.FileDescriptorSet(file=kept).SerializeToString(deterministic=True)


def template_document(name: str, namespace: str, files: Files) -> str:
    """A document of kind template."""
    return _document("template", name, namespace) + f'spec:\n  descriptor: "{_base64(files)}"\n'


def adapter_document(
    name: str, namespace: str, description: str, templates: Sequence[str], config: Files | None, *, session_based: bool
) -> str:
    """A document of kind adapter."""
    text = _document("adapter", name, namespace) + "spec:\n"
    if description:
        text += f"  description: {_quoted(description)}\n"
    text += f"  session_based: {'true' if session_based else 'false'}\n  templates:\n"
    text += "".join(f"  - {template}\n" for template in templates)
    if config is not None:
        text += f'  config: "{_base64(config)}"\n'
    return text


def _document(kind: str, name: str, namespace: str) -> str:
    return f"""# Made by `meshwright adapter gen`.
apiVersion: config.istio.io/v1alpha2
kind: {kind}
metadata:
  name: {name}
  namespace: {namespace}
"""


def _base64(files: Files) -> str:
    return base64.b64encode(descriptor_set(files)).decode()


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'"{escaped}"'
