"""QuotaSpecs and HTTPAPISpecs as expressions: what a request is charged, and what its service's API calls it.

The original's sidecars asked for quotas and named operations themselves; Envoy does neither. One decision to know: the
specs become parts of whatever reads them (ADR 53). An attribute that a request lacks is read as what the specs of its
service say of it, and a quota that a spec names is charged what the bindings of the request's service say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from meshwright.mixer.cexl import ValueType
from meshwright.mixer.cexl.typed import Apply, Attribute, Constant, Expression, Lookup
from meshwright.mixer.config.documents import Documents
from meshwright.mixer.config.violation import Identity, path
from meshwright.mixer.specs.api_spec import USUAL_KEYS, AttributeValue, HttpApiSpec
from meshwright.mixer.specs.quota_spec import AttributeMatch, QuotaSpec, StringMatch
from meshwright.mixer.specs.service import Service

MAX_PATTERNS = 256
"""Of one attribute, in all: a condition that reads it twice stays within the engine's bounds."""
API_KEY = "request.api_key"

_BOOL, _STRING, _INT64, _MAP = ValueType.BOOL, ValueType.STRING, ValueType.INT64, ValueType.STRING_MAP
_TRUE, _FALSE, _NOTHING = Constant(_BOOL, True), Constant(_BOOL, False), Constant(_INT64, 0)
_HOST = Attribute(_STRING, "destination.service.host")
_METHOD, _PATH = Attribute(_STRING, "request.method"), Attribute(_STRING, "request.url_path")


@dataclass(frozen=True, slots=True)
class Part:
    """A part of what the specs became, and the field of the document that it is at fault for."""

    expression: Expression
    owner: Identity
    field: str


@dataclass(frozen=True, slots=True)
class ServiceSpecs:
    """`attributes` are what the specs say of attributes that a request lacks, `charges` what quotas are charged.

    Quotas go by their names in lower case; one that isn't there is named by no spec.
    """

    attributes: Mapping[str, Expression] = field(default_factory=dict)
    charges: Mapping[str, Expression] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    unused: tuple[tuple[Identity, str, str], ...] = ()
    """Document, field and reason of what is good for the original's sidecars only."""

    def applied(self, expression: Expression) -> Expression:
        """The expression, which takes of the specs what requests lack."""
        if not self.attributes:
            return expression
        match expression:
            case Attribute(kind, name) if name in self.attributes:
                return Apply(kind, "|", (expression, self.attributes[name]))
            case Apply(_, "has", (Attribute(_, name),)) if name in self.attributes:
                value = self.attributes[name]
                return _any([expression, Apply(_BOOL, "default", (Apply(_BOOL, "==", (value, value)), _FALSE))])
            case Lookup(kind, inner, key):
                return Lookup(kind, self.applied(inner), self.applied(key))
            case Apply(kind, function, arguments):
                return Apply(kind, function, tuple(self.applied(each) for each in arguments))
        return expression


def service_specs(found: Documents) -> ServiceSpecs:
    """The specs and bindings of a configuration, without those that were left out."""
    specs = _Specs(found)
    charges = specs.charges()
    attributes = specs.attributes()
    return ServiceSpecs(attributes, charges, tuple(specs.parts), tuple(specs.unused))


class _Specs:
    def __init__(self, found: Documents) -> None:
        self._found = found
        self.parts: list[Part] = []
        self.unused: list[tuple[Identity, str, str]] = []

    def charges(self) -> dict[str, Expression]:
        """By quota: the sum of what each rule charges whose service and match fit."""
        terms: dict[str, list[Expression]] = {
            quota.quota.casefold(): []
            for _, spec in self._good("QuotaSpec")
            for rule in spec.rules
            for quota in rule.quotas
        }
        for bound, identity, spec in self._bound("QuotaSpecBinding", "QuotaSpec", "quota_specs"):
            for number, rule in enumerate(_rules(spec)):
                fits = self._matches(identity, number, rule.match)
                for quota in rule.quotas:
                    charge = Constant(_INT64, quota.charge)
                    term = Apply(_INT64, "conditional", (_all([bound, fits]), charge, _NOTHING))
                    terms[quota.quota.casefold()].append(Apply(_INT64, "default", (term, _NOTHING)))
        return {name: Apply(_INT64, "+", tuple(each)) if each else _NOTHING for name, each in terms.items()}

    def _matches(self, identity: Identity, rule: int, given: Iterable[AttributeMatch]) -> Expression:
        found = []
        for number, match in enumerate(given):
            where = path("spec", "rules", rule, "match", number, "clause")
            clauses = [self._clause(identity, f"{where}.{name}", name, each) for name, each in match.clause.items()]
            found.append(_all(clauses))
        if not found:
            return _TRUE
        return self._part(identity, path("spec", "rules", rule, "match"), _any(found))

    def _clause(self, identity: Identity, where: str, name: str, match: StringMatch) -> Expression:
        if self._found.vocabulary.get(name) is not _STRING:
            self.unused.append((identity, where, "no attribute of type STRING: it never fits"))
            return _FALSE
        text = Attribute(_STRING, name)
        if match.exact is not None:
            return Apply(_BOOL, "==", (text, Constant(_STRING, match.exact)))
        if match.prefix is not None:
            return Apply(_BOOL, "startsWith", (text, Constant(_STRING, match.prefix)))
        return _matches(text, match.regex or "")

    def attributes(self) -> dict[str, Expression]:
        """By attribute: of the service's specs the last that says something of it; of keys the first."""
        found: dict[str, list[Expression]] = {}
        counts: dict[str, int] = {}
        for bound, identity, spec in self._bound("HTTPAPISpecBinding", "HTTPAPISpec", "api_specs"):
            all_values = self._values(identity, spec)
            many = [name for name, values in all_values.items() if counts.get(name, 0) + len(values) > MAX_PATTERNS]
            if many:
                message = f"more than {MAX_PATTERNS} patterns say something of {many[0]}: bind fewer, or join some"
                self._found.refuse(identity, "spec.patterns", message)
                continue
            for name, values in all_values.items():
                counts[name] = counts.get(name, 0) + len(values)
                absent = Attribute(self._found.vocabulary[name], name)
                said = Apply(absent.type, "conditional", (bound, _first(absent.type, values), absent))
                found[name] = [*found.get(name, ()), said] if name == API_KEY else [said, *found.get(name, ())]
        return {name: _first(self._found.vocabulary[name], said) for name, said in found.items()}

    def _values(self, identity: Identity, spec: HttpApiSpec) -> dict[str, list[Expression]]:
        """What one spec says of each attribute: alternatives, of which the first counts that has a value."""
        found: dict[str, list[Expression]] = {}
        fitting = [
            (number, pattern, self._part(identity, path("spec", "patterns", number), _fits(pattern)))
            for number, pattern in enumerate(spec.patterns)
        ]
        ranked = [(each[1].template, each) for each in fitting if each[1].template is not None]
        templates = [each for _, each in sorted(ranked, key=lambda one: one[0])]
        for number, pattern, fits in reversed([each for each in fitting if each[1].template is None]):
            self._say(identity, path("spec", "patterns", number), pattern.attributes.plain, fits, found)
        names = dict.fromkeys(name for _, pattern, _ in templates for name in pattern.attributes.plain)
        for name in names:
            others: list[Expression] = []  # more exact templates, which don't say it
            for number, pattern, fits in templates:
                value = pattern.attributes.plain.get(name)
                if value is None:
                    others.append(fits)
                    continue
                alone = _all([fits, Apply(_BOOL, "!", (_any(others),))]) if others else fits
                self._say(identity, path("spec", "patterns", number), {name: value}, alone, found)
        self._say(identity, "spec", spec.attributes.plain, _TRUE, found)
        if keys := self._keys(identity, spec):
            found[API_KEY] = [*found.get(API_KEY, ()), *keys]
        return found

    def _say(
        self,
        identity: Identity,
        where: str,
        given: Mapping[str, AttributeValue],
        fits: Expression,
        found: dict[str, list[Expression]],
    ) -> None:
        for name, value in given.items():
            constant, kind = _constant(value), self._found.vocabulary.get(name)
            if kind is None:
                continue  # nobody can read it
            if constant is None or constant.type is not kind:
                message = f"{name} is of type {kind.name}, and can't be set to this value for Envoy's requests"
                self.unused.append((identity, f"{where}.attributes.attributes.{name}", message))
                continue
            said = constant if fits is _TRUE else Apply(kind, "conditional", (fits, constant, Attribute(kind, name)))
            found.setdefault(name, []).append(said)

    def _keys(self, identity: Identity, spec: HttpApiSpec) -> Iterator[Expression]:
        for number, key in enumerate(spec.api_keys or USUAL_KEYS):
            if key.query is not None:
                yield Lookup(_STRING, Attribute(_MAP, "request.query_params"), Constant(_STRING, key.query))
            elif key.header is not None:
                yield Lookup(_STRING, Attribute(_MAP, "request.headers"), Constant(_STRING, key.header.lower()))
            else:
                message = "cookies aren't read of Envoy's requests: let callers send a header or a parameter as well"
                self.unused.append((identity, path("spec", "apiKeys", number, "cookie"), message))

    def _part(self, identity: Identity, where: str, expression: Expression) -> Expression:
        self.parts.append(Part(expression, identity, where))
        return expression

    def _good(self, kind: str) -> list[tuple[Identity, Any]]:
        models = self._found.models.get(kind, {})
        return [(identity, models[identity]) for identity in sorted(models) if identity not in self._found.dropped]

    def _bound(self, binding: str, kind: str, references: str) -> Iterator[tuple[Expression, Identity, Any]]:
        """Each spec that a binding names, in the bindings' order, with the condition that its services fulfil."""
        specs = dict(self._good(kind))
        for identity, model in self._good(binding):
            if not model.services:
                continue
            bound = _any([_means(service, identity.namespace) for service in model.services])
            for reference in getattr(model, references):
                spec = Identity(kind, reference.namespace or identity.namespace, reference.name)
                if spec in specs:
                    yield bound, spec, specs[spec]


def _rules(spec: QuotaSpec) -> Iterable[Any]:
    return spec.rules


def _means(service: Service, home: str) -> Expression:
    """Whether a request is to the service; as meshwright.mixer.specs.service says it."""
    found: list[Expression] = []
    suffix = service.service.removeprefix("*")
    if service.name:
        host = f"{service.name}.{service.namespace or home}.{service.domain or 'svc.cluster.local'}"
        found.append(Apply(_BOOL, "==", (_HOST, Constant(_STRING, host))))
    elif suffix == service.service:
        found.append(Apply(_BOOL, "==", (_HOST, Constant(_STRING, suffix))))
    elif suffix:
        found.append(Apply(_BOOL, "endsWith", (_HOST, Constant(_STRING, suffix))))
    labels = Attribute(_MAP, "destination.labels")
    found += [
        Apply(_BOOL, "==", (Lookup(_STRING, labels, Constant(_STRING, key)), Constant(_STRING, value)))
        for key, value in service.labels.items()
    ]
    return _all(found)


def _fits(pattern: Any) -> Expression:
    """Whether a request is one that the pattern of an API means."""
    text = pattern.regex if pattern.template is None else pattern.template.pattern
    return _all([Apply(_BOOL, "==", (_METHOD, Constant(_STRING, pattern.http_method))), _matches(_PATH, text)])


def _matches(text: Expression, pattern: str) -> Expression:
    return Apply(_BOOL, "matches", (Constant(_STRING, f"^(?:{pattern})$"), text))


def _constant(value: AttributeValue) -> Constant | None:
    match value:
        case bool():
            return Constant(_BOOL, value)
        case int():
            return Constant(_INT64, value)
        case float():
            return Constant(ValueType.DOUBLE, value)
        case str():
            return Constant(_STRING, value)
        case datetime():
            return Constant(ValueType.TIMESTAMP, value)
        case timedelta():
            return Constant(ValueType.DURATION, value // timedelta(microseconds=1) * 1000)
    return None


def _all(conditions: list[Expression]) -> Expression:
    """All of them; one that is false decides whatever the others lack."""
    found = [each for each in conditions if each is not _TRUE]
    return found[0] if len(found) == 1 else Apply(_BOOL, "cel&&", tuple(found)) if found else _TRUE


def _any(conditions: list[Expression]) -> Expression:
    """Any of them; one that is true decides whatever the others lack."""
    if any(each is _TRUE for each in conditions):
        return _TRUE
    return conditions[0] if len(conditions) == 1 else Apply(_BOOL, "cel||", tuple(conditions))


def _first(kind: ValueType, alternatives: list[Expression]) -> Expression:
    """The first that has a value."""
    return alternatives[0] if len(alternatives) == 1 else Apply(kind, "|", tuple(alternatives))
