"""A Policy becomes rules, handlers and instances of the original kinds, which are all that the compiler knows.

One decision to know: everything that a policy becomes is named `POLICY/…`, which no object of a store may be called, so
it meets nothing of the user's; faults in it are told as the policy's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from meshwright.core.config import objects
from meshwright.core.errors import ConfigError
from meshwright.mixer.authoring import conditions
from meshwright.mixer.authoring.model import Limit, Log, Measure, Policy, Selection
from meshwright.mixer.cel import compile_cel
from meshwright.mixer.cexl import STANDARD, ExpressionError, ValueType
from meshwright.mixer.config import violation
from meshwright.mixer.config.violation import Identity, path

_CODES = {
    "INVALID_ARGUMENT": 3, "DEADLINE_EXCEEDED": 4, "NOT_FOUND": 5, "ALREADY_EXISTS": 6, "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8, "FAILED_PRECONDITION": 9, "ABORTED": 10, "OUT_OF_RANGE": 11, "UNIMPLEMENTED": 12,
    "INTERNAL": 13, "UNAUTHENTICATED": 16,
}  # fmt: skip
_SCALARS = frozenset(ValueType) - {ValueType.STRING_MAP}
_MEASURES = frozenset({ValueType.INT64, ValueType.DOUBLE, ValueType.DURATION})
# What stands for what a request lacks, by type.
_ABSENT = {
    ValueType.INT64: "0",
    ValueType.DOUBLE: "0.0",
    ValueType.BOOL: "false",
    ValueType.TIMESTAMP: 'timestamp("1970-01-01T00:00:00Z")',
    ValueType.DURATION: 'duration("0s")',
    ValueType.IP_ADDRESS: 'ip("0.0.0.0")',
}
_FIELDS = {
    "method": "request.method",
    "host": "request.host",
    "path": "request.url_path",
    "code": "response.code",
    "duration": "response.duration",
    "principal": "source.principal",
    "service": "destination.service.name",
}
_METRIC_KINDS = {"counter": "COUNTER", "distribution": "DISTRIBUTION"}


@dataclass(frozen=True, slots=True)
class Translated:
    """What a policy became: each document with the field of the policy that it came from; or what is wrong with it."""

    documents: list[tuple[objects.Object, str]] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)


def translate(
    identity: Identity,
    policy: Policy,
    source: str = "",
    vocabulary: Mapping[str, ValueType] = STANDARD,
    global_namespace: str = "meshwright-system",
) -> Translated:
    """Translate one policy; with a fault it becomes nothing at all."""
    translation = _Translation(identity, policy, source, vocabulary, global_namespace)
    translation.run()
    return Translated([], translation.faults) if translation.faults else Translated(translation.documents, [])


class _Translation:
    def __init__(
        self,
        identity: Identity,
        policy: Policy,
        source: str,
        vocabulary: Mapping[str, ValueType],
        global_namespace: str,
    ) -> None:
        self.identity, self.policy, self.source = identity, policy, source
        self.vocabulary, self.global_namespace = vocabulary, global_namespace
        self.documents: list[tuple[objects.Object, str]] = []
        self.made: set[tuple[str, str]] = set()
        self.faults: list[tuple[str, str]] = []
        self.target = conditions.targeted(policy.targets)

    def run(self) -> None:
        policy = self.policy
        if policy.targets:
            self.check_targets()
        self.check_sources()
        if self.faults:
            return
        self.access()
        self.limits()
        self.logs()
        self.measures()

    def check_targets(self) -> None:
        """Rules are found by namespace: a target that no rule of this one is ever asked about is an error."""
        if self.identity.namespace == self.global_namespace:
            return
        for number, target in enumerate(self.policy.targets or ()):
            for field_name, alias, what in (
                ("network_service", "networkService", "network services live in no namespace"),
                ("namespace", "namespace", "a policy is about its own namespace"),
            ):
                if getattr(target, field_name) is not None:
                    remedy = f"{what}: put the policy into namespace {self.global_namespace}, or leave this out"
                    self.faults.append((path("spec", "targets", number, alias), remedy))

    def check_sources(self) -> None:
        """Every expression by itself, so that a fault is told where it was written."""
        policy = self.policy
        for name, entries in (("allow", policy.allow or []), ("deny", policy.deny)):
            for number, access in enumerate(entries):
                self.check_when(access, "spec", name, number)
                for place, exception in enumerate(access.exceptions):
                    self.check_when(exception, "spec", name, number, "except", place)
        for number, limit in enumerate(policy.limits):
            self.check_when(limit, "spec", "limits", number)
            for place, source in enumerate(limit.by):
                self.kind(source, _SCALARS, "spec", "limits", number, "by", place)
        for number, log in enumerate(policy.log):
            self.check_when(log, "spec", "log", number)
            for name, source in log.fields.items():
                self.kind(source, _SCALARS, "spec", "log", number, "fields", name)
        for number, measure in enumerate(policy.measure):
            self.check_when(measure, "spec", "measure", number)
            self.kind(measure.value, _MEASURES, "spec", "measure", number, "value")
            for name, source in measure.by.items():
                self.kind(source, _SCALARS, "spec", "measure", number, "by", name)

    def check_when(self, selection: Selection, *where: str | int) -> None:
        if selection.when is not None:
            self.kind(selection.when, frozenset({ValueType.BOOL}), *where, "when")

    def kind(self, source: str, kinds: frozenset[ValueType], *where: str | int) -> ValueType | None:
        expected = next(iter(kinds)) if len(kinds) == 1 else None
        try:
            found = compile_cel(source, expected, self.vocabulary).type
        except ExpressionError as error:
            self.faults.append((path(*where), str(error)))
            return None
        if found not in kinds:
            names = ", ".join(sorted(each.name for each in kinds))
            self.faults.append((path(*where), f"the expression yields {found.name}: it must yield {names}"))
            return None
        return found

    def total(self, source: str) -> str:
        """The expression, with something to stand for what a request lacks."""
        found = compile_cel(source, None, self.vocabulary).type
        return f"default({source}, {_ABSENT.get(found, chr(34) * 2)})"

    def access(self) -> None:
        policy = self.policy
        if policy.deny:
            message = policy.answer.message or f"policy {self.identity.name} denies this request"
            handler = self.denier("deny", message, "spec.deny")
            for number, entry in enumerate(policy.deny):
                match = conditions.every([self.target, conditions.selected(entry)])
                self.rule(f"deny-{number + 1}", match, [(handler, [self.nothing()])], path("spec", "deny", number))
        if policy.allow is not None:
            message = policy.answer.message or f"policy {self.identity.name} allows no such request"
            handler = self.denier("otherwise", message, "spec.allow")
            refused = conditions.none_of([conditions.selected(each) for each in policy.allow])
            match = conditions.every([self.target, refused])
            self.rule("otherwise", match, [(handler, [self.nothing()])], "spec.allow")

    def denier(self, name: str, message: str, where: str) -> str:
        status = {"code": _CODES[self.policy.answer.code], "message": message}
        return self.add("handler", name, {"compiledAdapter": "denier", "params": {"status": status}}, where)

    def nothing(self) -> str:
        return self.add("instance", "nothing", {"compiledTemplate": "checknothing"}, "spec")

    def limits(self) -> None:
        limits = self.policy.limits
        quotas: list[dict[str, Any]] = []
        for number, limit in enumerate(limits):
            where = path("spec", "limits", number)
            dimensions = {f"by{place + 1}": self.total(source) for place, source in enumerate(limit.by)}
            instances = []
            for suffix, amount, window in _windows(limit):
                spec = {"compiledTemplate": "quota", "params": {"dimensions": dimensions}}
                instances.append(self.add("instance", f"{limit.name}{suffix}", spec, where))
                quotas.append({"name": instances[-1], "maxAmount": amount, "validDuration": f"{window}ns"})
            match = conditions.every([self.target, conditions.selected(limit)])
            handler = f"{self.identity.name}/limits"
            self.rule(f"limit-{limit.name}", match, [(handler, instances)], where)
        if quotas:
            self.add("handler", "limits", {"compiledAdapter": "memquota", "params": {"quotas": quotas}}, "spec.limits")

    def logs(self) -> None:
        for number, log in enumerate(self.policy.log):
            where = path("spec", "log", number)
            fields = log.fields or _FIELDS
            params = {
                "variables": {name: self.total(source) for name, source in fields.items()},
                "severity": conditions.quoted(log.severity),
            }
            instance = self.add(
                "instance", f"log-{number + 1}", {"compiledTemplate": "logentry", "params": params}, where
            )
            handler = log.handler or self.log_handler(log, where)
            match = conditions.every([self.target, conditions.selected(log)])
            self.rule(f"log-{number + 1}", match, [(handler, [instance])], where, enforce=True)

    def log_handler(self, log: Log, where: str) -> str:
        return self.add("handler", f"log-{log.to}", {"compiledAdapter": log.to, "params": {}}, where)

    def measures(self) -> None:
        metrics: dict[str, list[dict[str, Any]]] = {}
        for number, measure in enumerate(self.policy.measure):
            where = path("spec", "measure", number)
            dimensions = {name: self.total(source) for name, source in measure.by.items()}
            params = {"value": self.total(measure.value), "dimensions": dimensions}
            name = f"measure-{measure.name}"
            instance = self.add("instance", name, {"compiledTemplate": "metric", "params": params}, where)
            metrics.setdefault(measure.to, []).append(_metric(measure, instance, self.identity.namespace))
            match = conditions.every([self.target, conditions.selected(measure)])
            handler = f"{self.identity.name}/measure-{measure.to}"
            self.rule(name, match, [(handler, [instance])], where, enforce=True)
        for adapter, listed in metrics.items():
            spec = {"compiledAdapter": adapter, "params": {"metrics": listed}}
            self.add("handler", f"measure-{adapter}", spec, "spec.measure")

    def rule(
        self, name: str, match: str, actions: Sequence[tuple[str, list[str]]], where: str, *, enforce: bool = False
    ) -> None:
        spec: dict[str, Any] = {
            "match": match,
            "actions": [{"handler": handler, "instances": instances} for handler, instances in actions],
        }
        if match == conditions.TRUE:
            del spec["match"]
        if self.policy.mode == "dry-run" and not enforce:
            spec["mode"] = "dry-run"
        self.add("rule", name, spec, where)

    def add(self, kind: str, name: str, spec: dict[str, Any], where: str) -> str:
        """Add a document, unless it is there already; return its name."""
        full = f"{self.identity.name}/{name}"
        if (kind, full) in self.made:
            return full
        self.made.add((kind, full))
        if kind != "handler":
            spec["language"] = "CEL"
        document = {
            "apiVersion": violation.API_VERSION,
            "kind": kind,
            "metadata": {"name": full, "namespace": self.identity.namespace},
            "spec": spec,
        }
        try:
            self.documents.append((objects.from_document(document, self.source), where))
        except ConfigError as error:
            self.faults.append((where, error.message))
        return full


def _windows(limit: Limit) -> Iterable[tuple[str, int, int]]:
    """Suffix of the instance, amount and nanoseconds of each window that the limit is kept in."""
    yield "", limit.amount, limit.per
    if limit.burst is not None:
        yield "-burst", limit.burst, limit.burst_window


def _metric(measure: Measure, instance: str, namespace: str) -> dict[str, Any]:
    """As the handlers of metrics take it: opentelemetry names the instance `instance`, prometheus `instanceName`.

    The name is the author's; without a namespace prometheus would put `istio_` before it.
    """
    kind = _METRIC_KINDS[measure.kind]
    if measure.to == "prometheus":
        metric: dict[str, Any] = {
            "name": measure.name,
            "namespace": "",
            "instanceName": f"{instance}.instance.{namespace}",
            "kind": kind,
            "labelNames": sorted(measure.by),
        }
        if measure.description:
            metric["description"] = measure.description
        if measure.bounds is not None:
            metric["buckets"] = {"explicitBuckets": {"bounds": measure.bounds}}
        return metric
    metric = {"instance": instance, "name": measure.name, "kind": kind, "unit": measure.unit}
    metric["description"] = measure.description
    if measure.bounds is not None:
        metric["bounds"] = measure.bounds
    return metric
