"""From a JSON document to a validated object, or to faults that a person can act on.

pydantic finds the faults; the sentences are ours, because a reader of `meshwright apply` doesn't know our classes.
"""

from __future__ import annotations

import difflib
import json
import typing
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import pydantic
from pydantic_core import ErrorDetails

from meshwright.core import errors
from meshwright.core.config import Key
from meshwright.manager.model import kinds
from meshwright.manager.model.document import DEFAULT_NAMESPACE, Document
from meshwright.manager.model.fault import Fault

SOURCE = "meshwright.io/source"
"""Annotation of objects that says where they were taken from."""
CLUSTER = "kubernetes"

MAX_FAULTS = 20  # of one object; more only hide the first


@dataclass(frozen=True, slots=True)
class Parsed:
    """A valid object. `text` is its canonical JSON: equal objects have equal text."""

    key: Key
    kind: kinds.Kind
    document: Document
    text: str

    @property
    def mirrored(self) -> bool:
        """Whether it was taken from a cluster, where it is changed and deleted."""
        return self.document.metadata.annotations.get(SOURCE) == CLUSTER


def parse(text: str, index: int = -1, given: Key | None = None) -> Parsed | list[Fault]:
    """Validate one document; `given` is the key that the request claims, whose namespace fills in a missing one."""
    blank = given or Key("", "", "", "")
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        return [Fault(blank, "", f"isn't JSON: {error}", index)]
    if not isinstance(raw, dict):
        return [Fault(blank, "", "isn't an object: write apiVersion, kind, metadata and spec", index)]
    api_version, name = raw.get("apiVersion"), raw.get("kind")
    for field, value in (("apiVersion", api_version), ("kind", name)):
        if not isinstance(value, str) or not value:
            return [Fault(blank, field, "is missing: every object says its apiVersion and kind", index)]
    kind = kinds.find(str(api_version), str(name))
    if kind:
        raw = kind.shape(raw)
    metadata = raw.get("metadata")
    labels = metadata if isinstance(metadata, dict) else {}
    key = Key(str(api_version), str(name), str(labels.get("namespace") or ""), str(labels.get("name") or ""))
    if kind is None:
        return [Fault(key, "kind", _unknown_kind(str(api_version), str(name)), index)]
    if kind.namespaced and isinstance(metadata, dict) and metadata.get("namespace") is None:
        metadata["namespace"] = (given.namespace if given else "") or DEFAULT_NAMESPACE
        key = replace(key, namespace=metadata["namespace"])
    spelling = kinds.spelling(key.api_version, key.kind)
    schema = spelling.schema if spelling else kind.schema
    try:
        document = schema.model_validate_json(json.dumps(raw))
        if spelling:
            schema, raw = kind.schema, kind.shape(kind.newest(raw))
            document = schema.model_validate_json(json.dumps(raw))
    except pydantic.ValidationError as error:
        faults = list(_faults(error, schema, key, index))
        return faults[:MAX_FAULTS]
    except errors.ConfigError as error:
        return [Fault(key, error.field, error.message, index)]
    if not kind.namespaced and document.metadata.namespace is not None:
        return [Fault(key, "metadata.namespace", f"a {kind.name} lives in no namespace: remove this field", index)]
    key = Key(kind.api_version, kind.name, document.metadata.namespace or "", document.metadata.name)
    if given and given.name and not _claimed(given, key, kind):
        return [Fault(key, "metadata", f"the request calls this object {given}, the document {key}", index)]
    return Parsed(key, kind, document, json.dumps(raw, sort_keys=True, separators=(",", ":"), ensure_ascii=False))


def _claimed(given: Key, key: Key, kind: kinds.Kind) -> bool:
    """Return whether a request means this object, in whatever version it names it."""
    return kinds.find(given.api_version, given.kind) is kind and given.name == key.name


def _unknown_kind(api_version: str, name: str) -> str:
    near = kinds.nearest(api_version, name)
    if near and near.name == name:
        return f"{name} isn't served as {api_version}: write apiVersion: {near.api_version}"
    if near:
        return f"unknown kind {name} ({api_version}): did you mean {near.name}, apiVersion {near.api_version}?"
    return f"unknown kind {name} ({api_version}): there are {', '.join(map(str, kinds.KINDS))}"


def _faults(error: pydantic.ValidationError, schema: type[Document], key: Key, index: int) -> Iterable[Fault]:
    seen: set[str] = set()
    found = [(fault, _location(fault)) for fault in error.errors(include_url=False)]
    misspelt = {
        (*location[:-1], _meant(str(location[-1]), _fields(schema, location[:-1])))
        for fault, location in found
        if fault["type"] == "extra_forbidden"
    }
    for fault, location in found:
        if fault["type"] == "missing" and tuple(location) in misspelt:
            continue  # one mistake, told once
        path = getattr((fault.get("ctx") or {}).get("error"), "field", None) or _path(location)
        if path not in seen:
            seen.add(path)
            yield Fault(key, path, _sentence(fault, schema, location), index)


def _location(fault: ErrorDetails) -> list[int | str]:
    """Return the path in the person's document, without the names that pydantic gives to the branches of a union."""
    return [part for part in fault["loc"] if not (isinstance(part, str) and _is_branch(part))]


def _is_branch(part: str) -> bool:
    return "[" in part or "(" in part or part in ("int", "str")


def _path(location: Iterable[int | str]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "string_type": "text",
    "bool_type": "true or false",
    "dict_type": "a map of names to values",
    "list_type": "a list",
    "model_type": "a map of fields",
    "model_attributes_type": "a map of fields",
}


def _sentence(fault: ErrorDetails, schema: type[Document], location: list[int | str]) -> str:
    context = fault.get("ctx") or {}
    match fault["type"]:
        case "extra_forbidden":
            return _unknown_field(str(location[-1]), _fields(schema, location[:-1]))
        case "missing":
            return "is required and missing"
        case "value_error":
            return str(context.get("error", fault["msg"]))
        case "literal_error":
            return f"is {_show(fault['input'])}: write {context.get('expected')}"
        case "greater_than_equal" | "less_than_equal":
            return _range(fault, context)
        case "too_short":
            return f"has {context.get('actual_length')} entries: at least {context.get('min_length')} needed"
        case "too_long":
            return f"has more than {context.get('max_length')} entries: split it over several objects"
        case name if name in _TYPES:
            hint = ", in quotes" if name == "string_type" else ""
            return f"is {_show(fault['input'])}: write {_TYPES[name]}{hint}"
    return str(fault["msg"])


def _range(fault: ErrorDetails, context: dict[str, Any]) -> str:
    if "ge" in context:
        least = context["ge"]
        return f"is {_show(fault['input'])}: " + ("can't be negative" if least == 0 else f"write {least} or more")
    return f"is {_show(fault['input'])}: write {context.get('le')} or less"


def _show(value: Any) -> str:
    text = json.dumps(value, default=str)
    text = text if len(text) <= 60 else f"{text[:57]}..."
    match value:
        case bool():
            return f"{text} (true or false)"
        case str():
            return f"{text} (text)"
        case int():
            return f"{text} (a whole number)"
        case float():
            return f"{text} (a fraction)"
        case list():
            return "a list"
        case dict():
            return "a map"
        case None:
            return "empty"
    return text


def _unknown_field(name: str, known: list[str]) -> str:
    meant = _meant(name, known)
    if meant:
        return f"unknown field: did you mean {meant}?"
    return f"unknown field: remove it (known here: {', '.join(known) or 'none'})"


def _meant(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return close[0] if close else ""


def _fields(schema: Any, location: Iterable[int | str]) -> list[str]:
    """Return the field names that a document may have at `location`."""
    for part in location:
        model = _model(schema)
        if model is None:
            return []
        if isinstance(part, str):
            field = next((f for n, f in model.model_fields.items() if part in (f.alias, n)), None)
            if field is None:
                return []
            schema = field.annotation
    model = _model(schema)
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _model(annotation: Any) -> type[pydantic.BaseModel] | None:
    """Return the model inside an annotation such as `list[Model]` or `Annotated[Model | None, …]`."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return annotation
    return next(filter(None, map(_model, typing.get_args(annotation))), None)
