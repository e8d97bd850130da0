"""Configuration objects as the platform passes them on: Kubernetes' shape, whatever the kind.

One decision to know: `json` is canonical (keys sorted, no blanks), so two objects say the same if their `json` is
equal; where an object was read (`source`) doesn't count.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from meshwright.core.config import json_text
from meshwright.core.config.errors import DocumentError
from meshwright.core.config.limits import LIMITS, Limits, size


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """What an object is found by. `namespace` is empty for kinds of the whole cluster."""

    api_version: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """Say it as people do: ``TrafficSplit default/catalog``."""
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"

    @property
    def group(self) -> str:
        """The API group; empty for the core group."""
        return self.api_version.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Object:
    """One document. Compared and hashed by `json`."""

    api_version: str = field(compare=False)
    kind: str = field(compare=False)
    namespace: str = field(compare=False)
    name: str = field(compare=False)
    labels: Mapping[str, str] = field(compare=False, repr=False)
    annotations: Mapping[str, str] = field(compare=False, repr=False)
    spec: Mapping[str, Any] = field(compare=False, repr=False)
    json: str = field(repr=False)  # the whole document
    source: str = field(compare=False)  # "file.yaml#2", or where else it came from

    @property
    def key(self) -> Key:
        """What this object is found by."""
        return Key(self.api_version, self.kind, self.namespace, self.name)

    def document(self) -> dict[str, Any]:
        """Return the whole document, a copy of its own."""
        document: dict[str, Any] = json.loads(self.json)
        return document


_NAMED_AT_ROOT = ("v1beta1", "smi.meshwright.io/v1beta1")  # Smeagol's objects, which had no metadata at first


def named(document: dict[str, Any]) -> dict[str, Any]:
    """Put a name that is at the root where every other object has it."""
    metadata = document.get("metadata")
    if document.get("apiVersion") not in _NAMED_AT_ROOT or "name" not in document:
        return document
    if not (metadata is None or (isinstance(metadata, dict) and "name" not in metadata)):
        return document
    rest = {key: value for key, value in document.items() if key != "name"}
    return {**rest, "metadata": {**(metadata or {}), "name": document["name"]}}


def from_document(document: Any, source: str, *, line: int = 0, limits: Limits = LIMITS) -> Object:
    """Build an object from parsed YAML or JSON; DocumentError names the field that is wrong.

    Only what every kind has is checked here: apiVersion, kind, metadata and that spec is a map.
    """

    def fault(message: str, path: str = "", remedy: str = "") -> DocumentError:
        return DocumentError(message, source=source, line=line, field=path, remedy=remedy)

    if not isinstance(document, dict):
        raise fault(f"a document must be a map, not {_kind(document)}", remedy="begin with apiVersion: and kind:")
    document = named(document)
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    try:
        length = len(canonical.encode())
    except UnicodeEncodeError as error:
        raise fault(r"text holds half of a surrogate pair (\ud800-\udfff), which isn't a character") from error
    if length > limits.document_bytes:
        raise fault(f"has {size(length)} as JSON; at most {size(limits.document_bytes)} are taken", remedy="split it")
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        what = "is missing" if metadata is None else f"must be a map, not {_kind(metadata)}"
        raise fault(what, "metadata", "write metadata: with a name:")
    spec = document.get("spec")
    if spec is None:
        spec = {}
    if not isinstance(spec, dict):
        raise fault(f"must be a map, not {_kind(spec)}", "spec")

    def text(fields: Mapping[str, Any], name: str, path: str, *, required: bool) -> str:
        value = fields.get(name)
        if value is None and not required:
            return ""
        if not isinstance(value, str):
            what = "is missing" if value is None else f"must be text, not {_kind(value)}"
            raise fault(what, path, "" if value is None else "put it in quotation marks")
        if not value and required:
            raise fault("is empty", path)
        if len(value) > 253:
            raise fault(f"has {len(value)} characters; at most 253 are taken", path)
        return value

    def texts(name: str) -> dict[str, str]:
        value = metadata.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise fault(f"must be a map, not {_kind(value)}", f"metadata.{name}")
        for key, entry in value.items():
            if not isinstance(entry, str):
                raise fault(f"must be text, not {_kind(entry)}", f"metadata.{name}[{key}]", "put it in quotation marks")
        return dict(value)

    fields = {
        "api_version": text(document, "apiVersion", "apiVersion", required=True),
        "kind": text(document, "kind", "kind", required=True),
        "namespace": text(metadata, "namespace", "metadata.namespace", required=False),
        "name": text(metadata, "name", "metadata.name", required=True),
    }
    return Object(
        **fields,
        labels=texts("labels"),
        annotations=texts("annotations"),
        spec=spec,
        json=canonical,
        source=source,
    )


def from_json(text: str, source: str, *, limits: Limits = LIMITS) -> Object:
    """Build an object from one JSON document, as the API and the store hold it."""
    return from_document(json_text.parse(text, source, limits), source, limits=limits)


def _kind(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return f"the number {value}"
        case str():
            return "text"
        case list():
            return "a list"
    return "a map"
