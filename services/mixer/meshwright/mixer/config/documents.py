"""Reads documents into models and resolves the names between them; every fault becomes a violation.

One decision to know: a document with a fault is left out, and so is what can't do without it; each has a violation that
says why, and everything else stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import pydantic
import structlog

from meshwright.core.config.objects import Object
from meshwright.mixer.authoring import model as authoring
from meshwright.mixer.authoring.translate import translate
from meshwright.mixer.cexl import STANDARD, ValueType
from meshwright.mixer.config.kinds import API_VERSIONS, HANDLER, INSTANCE, KINDS, MEANINGS
from meshwright.mixer.config.models import Adapter, AttributeManifest, Handler, Instance, Rule, Template
from meshwright.mixer.config.violation import Identity, Violation, from_pydantic, path

_log = structlog.get_logger(__name__)
POLICY_TEST = "PolicyTest"
MODE = "meshwright.io/mode"

M = TypeVar("M", bound=pydantic.BaseModel)
_Faults = list[tuple[str, str]]


class Readings:
    """What documents were read as, kept from one snapshot to the next: an unchanged document isn't read again."""

    def __init__(self) -> None:
        self._before: dict[tuple[Identity, object], tuple[object, Any, _Faults]] = {}
        self._now: dict[tuple[Identity, object], tuple[object, Any, _Faults]] = {}

    def begin(self) -> None:
        """Begin a snapshot; what the one before didn't use is forgotten."""
        self._before, self._now = self._now, {}

    def read(
        self, identity: Identity, model: type[M], given: object, values: Any, root: str
    ) -> tuple[M | None, _Faults]:
        """Validate `values`, which belong to `given` (an equal one has equal values)."""
        key = (identity, model)
        known = self._now.get(key) or self._before.get(key)
        if known is None or (known[0] is not given and known[0] != given):
            try:
                known = (given, model.model_validate(values), [])
            except pydantic.ValidationError as error:
                known = (given, None, from_pydantic(error, root))
            except Exception as error:  # an adapter's own model may do anything
                _log.exception("parameters_not_judged", object=str(identity))
                known = (given, None, [(root, f"{model.__name__} fails on it: {type(error).__name__}: {error}")])
        self._now[key] = known
        return known[1], known[2]


@dataclass(slots=True)
class Documents:
    """All readable documents by kind, where each came from, and the faults found so far."""

    readings: Readings
    objects: dict[Identity, Object] = field(default_factory=dict)
    models: dict[str, dict[Identity, Any]] = field(default_factory=dict)
    rules: dict[Identity, Rule] = field(default_factory=dict)
    handlers: dict[Identity, Handler] = field(default_factory=dict)
    instances: dict[Identity, Instance] = field(default_factory=dict)
    vocabulary: Mapping[str, ValueType] = field(default_factory=lambda: STANDARD)
    sources: dict[Identity, str] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)
    dropped: dict[Identity, Violation] = field(default_factory=dict)  # the first violation of each
    origins: dict[Identity, tuple[Identity, str]] = field(default_factory=dict)  # what documents of ours were made of

    @property
    def templates(self) -> Mapping[Identity, Template]:
        """Documents of kind template."""
        return cast("Mapping[Identity, Template]", self.models.get("template", {}))

    @property
    def adapters(self) -> Mapping[Identity, Adapter]:
        """Documents of kind adapter."""
        return cast("Mapping[Identity, Adapter]", self.models.get("adapter", {}))

    def refuse(self, identity: Identity, where: str, message: str, cause: Identity | None = None) -> None:
        """Note a fault of `identity` at the field path `where`; `cause` is another document that was left out."""
        self._drop(identity, Violation(*self.blamed(identity, where), message, self.sources.get(identity, ""), cause))

    def unknown(self, identity: Identity, where: str, kind: str, reference: str) -> None:
        """Note that a reference of `identity` leads nowhere."""
        message = f"unknown {kind} {reference!r}: apply it too, or correct the name (name or name.namespace)"
        self.refuse(identity, where, message)

    def blamed(self, identity: Identity, where: str) -> tuple[Identity, str]:
        """Whose fault it is: what was made of a document is its author's."""
        return self.origins.get(identity, (identity, where))

    def _drop(self, identity: Identity, violation: Violation) -> None:
        """Leave `identity` out, and what it was made of."""
        if violation.object == identity or violation not in self.violations:
            self.violations.append(violation)
        self.dropped.setdefault(identity, violation)
        self.dropped.setdefault(violation.object, violation)

    def miss(self, identity: Identity, where: str, needed: Identity) -> None:
        """Note that `identity` can't do without a document that was left out."""
        reason = self.dropped[needed]
        self.refuse(identity, where, f"{needed} was left out ({reason.field}: {reason.message})", needed)

    def parameters(self, identity: Identity, model: type[M], values: Mapping[str, Any]) -> M | None:
        """Read the parameters by the model of a template or an adapter."""
        root = "spec" if is_legacy(identity) else "spec.params"
        result, faults = self.readings.read(identity, model, self.objects.get(identity), values, root)
        for where, message in faults:
            self.refuse(identity, where, message)
        return result

    def at(self, identity: Identity, *parts: str | int) -> str:
        """The path of a parameter."""
        return path("spec", *parts) if is_legacy(identity) else path("spec", "params", *parts)

    def find_handler(self, reference: str, referrer: Identity) -> Identity | None:
        """The handler that `referrer` means, or None."""
        return self.find(reference, HANDLER, referrer)

    def find_instance(self, reference: str, referrer: Identity) -> Identity | None:
        """The instance that `referrer` means, or None."""
        return self.find(reference, INSTANCE, referrer)

    def find(self, reference: str, kind: str, referrer: Identity) -> Identity | None:
        """The document of `kind`, or of a legacy kind that stands for it, that `referrer` means; dropped ones too."""
        candidates = _candidates(reference, kind, referrer.namespace)
        return next((candidate for candidate in candidates if candidate in self.sources), None)


def read(documents: Iterable[Object], readings: Readings | None = None) -> Documents:
    """Sort mixer's documents by kind; documents of other owners are passed over."""
    result = Documents(readings or Readings())
    result.readings.begin()
    for document in documents:
        # Tests of policies lie beside them, and are nobody's configuration.
        if document.api_version in API_VERSIONS and document.kind != POLICY_TEST:
            _take(result, document)
    _manifests(result)
    _bindings(result)
    return result


def add_policies(result: Documents, global_namespace: str) -> None:
    """Add what the policies that are good become."""
    for identity, policy in sorted(result.models.get(authoring.KIND, {}).items()):
        if identity in result.dropped:
            continue
        source = result.sources[identity]
        translated = translate(identity, policy, source, result.vocabulary, global_namespace)
        for where, message in translated.faults:
            result.refuse(identity, where, message)
        for document, where in translated.documents:
            result.origins[identity_of(document)] = (identity, where)
            _take(result, document)


def partly_dropped(result: Documents) -> list[Violation]:
    """Why policies must go of which a part was left out: half a policy means something else."""
    return list(
        {
            origin: result.dropped[made] for made, (origin, _) in result.origins.items() if made in result.dropped
        }.values()
    )


def identity_of(document: Object) -> Identity:
    """The document's identity; one without a namespace belongs to namespace default."""
    return Identity(document.kind, document.namespace or "default", document.name)


def is_legacy(identity: Identity) -> bool:
    """Whether a handler or an instance was written in the adapter's or template's own kind."""
    return identity.kind not in (HANDLER, INSTANCE) and identity.kind in MEANINGS


def shown(identity: Identity) -> str:
    """The name of a handler or an instance among all: a legacy kind is part of it, as in the original."""
    return f"{identity.name}.{identity.kind}" if is_legacy(identity) else identity.name


def _take(result: Documents, document: Object) -> None:
    identity = identity_of(document)
    result.sources[identity] = document.source
    result.objects[identity] = document
    kind = KINDS.get((document.api_version, document.kind))
    if kind is None:
        known = ", ".join(name for version, name in KINDS if version == document.api_version)
        result.refuse(identity, "kind", f"unknown kind {document.kind!r} of {document.api_version}: use {known}")
        return
    values = document.spec if not kind.means else _meaning(kind.name, kind.means, document.spec)
    model, faults = result.readings.read(identity, kind.model, document, values, "spec")
    for where, message in faults:
        result.refuse(identity, where, message)
    if isinstance(model, Rule):
        model = _tried(result, identity, document, model)
    if model is None:
        return
    result.models.setdefault(kind.means or kind.name, {})[identity] = model
    match model:
        case Rule():
            result.rules[identity] = model
        case Handler():
            result.handlers[identity] = model
        case Instance():
            result.instances[identity] = model


def _tried(result: Documents, identity: Identity, document: Object, rule: Rule) -> Rule:
    """The rule in the mode that its annotation asks for, where a store knows the original's fields only."""
    mode = document.annotations.get(MODE)
    if mode not in (None, "enforce", "dry-run"):
        message = f"unknown mode {mode!r}: use enforce or dry-run"
        result.refuse(identity, path("metadata", "annotations", MODE), message)
    return rule.model_copy(update={"mode": "dry-run"}) if mode == "dry-run" else rule


def _meaning(name: str, means: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """The `spec` of the handler or instance that a legacy document stands for."""
    if means == HANDLER:
        return {"compiledAdapter": name, "params": dict(spec)}
    params = dict(spec)
    bindings = [params.pop(key) for key in ("attributeBindings", "attribute_bindings") if key in params]
    return {"compiledTemplate": name, "params": params, **({"attributeBindings": bindings[0]} if bindings else {})}


def _manifests(result: Documents) -> None:
    """Add the attributes of all manifests to those that mixer knows; another type for a known name is a fault."""
    manifests: Mapping[Identity, AttributeManifest] = result.models.get("attributemanifest", {})
    vocabulary = dict(STANDARD)
    declared: dict[str, Identity] = {}
    for identity in sorted(manifests):
        attributes = manifests[identity].attributes
        for name, info in attributes.items():
            known = vocabulary.get(name)
            if known is not None and known is not info.value_type:
                by = declared.get(name)
                where = path("spec", "attributes", name, "valueType")
                message = f"{name} is {known.name} {f'in {by}' if by else 'in mixer'}: declare it alike, or rename it"
                result.refuse(identity, where, message)
        if identity not in result.dropped:
            vocabulary.update({name: info.value_type for name, info in attributes.items()})
            declared.update(dict.fromkeys(attributes, identity))
    if declared:
        result.vocabulary = vocabulary


def _bindings(result: Documents) -> None:
    """Refuse bindings of what isn't there."""
    for binding, spec, name in (
        ("QuotaSpecBinding", "QuotaSpec", "quotaSpecs"),
        ("HTTPAPISpecBinding", "HTTPAPISpec", "apiSpecs"),
    ):
        for identity, model in result.models.get(binding, {}).items():
            for number, reference in enumerate(model.quota_specs if spec == "QuotaSpec" else model.api_specs):
                needed = Identity(spec, reference.namespace or identity.namespace, reference.name)
                where = path("spec", name, number)
                if needed in result.dropped:
                    result.miss(identity, where, needed)
                elif needed not in result.sources:
                    result.unknown(identity, where, spec, f"{needed.name}.{needed.namespace}")


def _candidates(reference: str, kind: str, namespace: str) -> Iterable[Identity]:
    """Names may hold dots: the longest reading comes first.

    All of it, name.namespace, name.kind, name.kind.namespace; a legacy document is only found by its kind.
    """
    yield Identity(kind, namespace, reference)
    name, dot, last = reference.rpartition(".")
    if not dot:
        return
    yield Identity(kind, last, name)
    if MEANINGS.get(last) == kind:
        yield Identity(last, namespace, name)
    short, dot, middle = name.rpartition(".")
    if dot and middle:
        if MEANINGS.get(middle) == kind:
            yield Identity(middle, last, short)
        yield Identity(kind, last, short)
