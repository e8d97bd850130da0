"""Reads documents into models and resolves the names between them; every fault becomes a violation.

A document with faults is left out of the result, so whoever refers to it gets no second complaint.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pydantic

from meshwright.core.config.objects import Object
from meshwright.mixer.config.fields import Model
from meshwright.mixer.config.models import Handler, Instance, Rule
from meshwright.mixer.config.violation import API_VERSION, Identity, Violation, from_pydantic

KINDS: Mapping[str, type[Model]] = {"rule": Rule, "handler": Handler, "instance": Instance}


M = TypeVar("M", bound=pydantic.BaseModel)


@dataclass(slots=True)
class Documents:
    """All readable documents, where each came from, and the faults found so far."""

    rules: dict[Identity, Rule] = field(default_factory=dict)
    handlers: dict[Identity, Handler] = field(default_factory=dict)
    instances: dict[Identity, Instance] = field(default_factory=dict)
    sources: dict[Identity, str] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)

    def refuse(self, identity: Identity, where: str, message: str) -> None:
        """Note a fault of `identity` at the field path `where`."""
        self.violations.append(Violation(identity, where, message, self.sources.get(identity, "")))

    def parameters(self, identity: Identity, model: type[M], values: Mapping[str, Any]) -> M | None:
        """Read `spec.params` by the model of a template or an adapter."""
        return self._read(identity, model, values, "spec.params")

    def find_handler(self, reference: str, referrer: Identity) -> Identity | None:
        """The handler that `referrer` means, or None."""
        return _find(reference, "handler", referrer.namespace, self.sources)

    def find_instance(self, reference: str, referrer: Identity) -> Identity | None:
        """The instance that `referrer` means, or None."""
        return _find(reference, "instance", referrer.namespace, self.sources)

    def _read(self, identity: Identity, model: type[M], values: Mapping[str, Any], root: str) -> M | None:
        try:
            return model.model_validate(values)
        except pydantic.ValidationError as error:
            for where, message in from_pydantic(error, root):
                self.refuse(identity, where, message)
            return None


def read(documents: Iterable[Object]) -> Documents:
    """Sort mixer's documents by kind; documents of other owners are passed over."""
    result = Documents()
    for document in documents:
        if document.api_version != API_VERSION:
            continue
        identity = identity_of(document)
        result.sources[identity] = document.source
        match document.kind:
            case "rule":
                _keep(result.rules, identity, result._read(identity, Rule, document.spec, "spec"))
            case "handler":
                _keep(result.handlers, identity, result._read(identity, Handler, document.spec, "spec"))
            case "instance":
                _keep(result.instances, identity, result._read(identity, Instance, document.spec, "spec"))
            case _:
                kinds = ", ".join(KINDS)
                result.refuse(identity, "kind", f"unknown kind {document.kind!r} of {API_VERSION}: use {kinds}")
    return result


def identity_of(document: Object) -> Identity:
    """The document's identity; one without a namespace belongs to namespace default."""
    return Identity(document.kind, document.namespace or "default", document.name)


def _keep(where: dict[Identity, M], identity: Identity, model: M | None) -> None:
    if model is not None:
        where[identity] = model


def _find(reference: str, kind: str, namespace: str, known: Mapping[Identity, str]) -> Identity | None:
    """Names may hold dots: the longest reading comes first (all of it, name.namespace, name.kind.namespace)."""
    candidates = [Identity(kind, namespace, reference)]
    name, dot, home = reference.rpartition(".")
    if dot:
        candidates.append(Identity(kind, home, name))
        short, dot, middle = name.rpartition(".")
        if dot and middle:
            candidates.append(Identity(kind, home, short))
    return next((candidate for candidate in candidates if candidate in known), None)
