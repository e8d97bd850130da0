"""Compiles all of mixer's documents into one policy for the Rust engine.

One decision to know: every fault of every document is gathered before refusing, and a policy compiles whole or not at
all. What the engine alone can judge (regular expressions, addresses in lists) it checks when it loads the policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pydantic

from meshwright.api.policy.v1 import policy_pb2 as pb
from meshwright.core.config.objects import Object
from meshwright.mixer.adapter.v1 import Adapter
from meshwright.mixer.cexl import ExpressionError, ValueType, compile_expression
from meshwright.mixer.cexl.typed import Apply, Attribute, Constant, Expression
from meshwright.mixer.config import defaults, documents, handlers, models
from meshwright.mixer.config.adapters import NATIVE, MemQuota
from meshwright.mixer.config.nodes import Nodes
from meshwright.mixer.config.places import Places
from meshwright.mixer.config.violation import Identity, PolicyError, Violation, path
from meshwright.mixer.templates import TEMPLATES, Template, Variety

FORMAT = 1
GLOBAL_NAMESPACE = "meshwright-system"
MAX_LEADING = 16  # what the engine takes

_HEADER_OPERATIONS = {
    "REPLACE": pb.HeaderOperation.REPLACE,
    "REMOVE": pb.HeaderOperation.REMOVE,
    "APPEND": pb.HeaderOperation.APPEND,
}


@dataclass(frozen=True, slots=True)
class Sink:
    """A handler whose adapter is Python: the adapter's name and the handler's accepted parameters."""

    adapter: str
    parameters: pydantic.BaseModel


@dataclass(frozen=True, slots=True)
class Compiled:
    """`policy` is what the engine loads; `sinks` are the handlers of the record pipeline by `name.namespace`."""

    policy: bytes
    rules: int
    sinks: Mapping[str, Sink] = field(default_factory=dict)
    warnings: tuple[Violation, ...] = ()
    places: Places = field(default_factory=lambda: Places())


def compile_policy(
    given: Iterable[Object],
    adapters: Mapping[str, Adapter],
    *,
    revision: str = "",
    export: bool = False,
) -> Compiled:
    """Compile documents; `export` adds the default rule that sends every record to OpenTelemetry.

    Raises PolicyError with all violations.
    """
    everything = [*given]
    if export:
        everything += defaults.documents(everything)
    found = documents.read(everything)
    return _Compiler(found, adapters, revision).compile()


class _Compiler:
    def __init__(self, found: documents.Documents, adapters: Mapping[str, Adapter], revision: str) -> None:
        self.found = found
        self.adapters = adapters
        self.policy = pb.Policy(
            format=FORMAT, revision=revision, global_namespace=GLOBAL_NAMESPACE, drop_unmatched_reports=True
        )
        self.nodes = Nodes(self.policy)
        self.instances: dict[Identity, int] = {}
        self.handlers: dict[Identity, int] = {}
        self.parameters: dict[Identity, pydantic.BaseModel] = {}
        self.used: set[Identity] = set()
        self.places = Places()

    def compile(self) -> Compiled:
        for identity in sorted(self.found.instances):
            self.instance(identity, self.found.instances[identity])
        for identity in sorted(self.found.handlers):
            self.handler(identity, self.found.handlers[identity])
        for identity in sorted(self.found.rules):
            self.rule(identity, self.found.rules[identity])
        if self.found.violations:
            raise PolicyError(self.found.violations)
        sinks = {
            f"{identity.name}.{identity.namespace}": Sink(handler.compiled_adapter, self.parameters[identity])
            for identity, handler in self.found.handlers.items()
            if handler.compiled_adapter in self.adapters
        }
        return Compiled(self.policy.SerializeToString(), len(self.found.rules), sinks, self.warnings(), self.places)

    def instance(self, identity: Identity, instance: models.Instance) -> None:
        template = TEMPLATES.get(instance.compiled_template)
        if template is None:
            known = ", ".join(sorted(TEMPLATES))
            message = f"unknown template {instance.compiled_template!r}: use one of {known}"
            self.found.refuse(identity, "spec.compiledTemplate", message)
            return
        parameters = self.found.parameters(identity, template.parameters, instance.params)
        if parameters is None:
            return
        fields = [
            pb.Field(name=each.name, value=node)
            for each in template.fields(parameters)
            if (node := self.value(identity, path("spec", "params", *each.path), each.source, each.types)) is not None
        ]
        compiled = self.policy.instances.add(name=identity.name, namespace=identity.namespace)
        match template.variety:
            case Variety.QUOTA:
                compiled.quota.SetInParent()
                compiled.quota.dimensions.extend(fields)
            case Variety.REPORT:
                compiled.report.template = template.name
                compiled.report.fields.extend(fields)
            case Variety.CHECK if template.name == "listentry":
                compiled.list_entry.value = fields[0].value if fields else 0
            case Variety.CHECK:
                compiled.check_nothing.SetInParent()
        self.instances[identity] = self.places.add("instances", identity, self.found)

    def handler(self, identity: Identity, handler: models.Handler) -> None:
        name = handler.compiled_adapter
        if name in NATIVE:
            native = self.found.parameters(identity, NATIVE[name][0], handler.params)
            if native is None:
                return
            compiled = handlers.native(identity, native)
            if isinstance(native, MemQuota):
                self.limits(identity, native, compiled.quotas)
        elif name in self.adapters:
            parameters = self.found.parameters(identity, self.adapters[name].parameters, handler.params)
            if parameters is None:
                return
            self.parameters[identity] = parameters
            compiled = handlers.sink(identity, name)
        else:
            known = ", ".join(sorted([*NATIVE, *self.adapters]))
            message = f"unknown adapter {name!r}: use one of {known}, or install the package that brings it"
            self.found.refuse(identity, "spec.compiledAdapter", message)
            return
        self.policy.handlers.append(compiled)
        self.handlers[identity] = self.places.add("handlers", identity, self.found)

    def limits(self, identity: Identity, parameters: MemQuota, compiled: pb.Handler.Quotas) -> None:
        seen: set[Identity] = set()
        for number, quota in enumerate(parameters.quotas):
            where = path("spec", "params", "quotas", number, "name")
            target = self.find_instance(quota.name, identity, where)
            if target is None or target not in self.instances:
                continue
            instance = self.policy.instances[self.instances[target]]
            if instance.WhichOneof("template") != "quota":
                self.found.refuse(identity, where, f"{target} is not a quota: name an instance of template quota")
                continue
            if target in seen:
                self.found.refuse(identity, where, f"{target} is limited twice: keep one entry")
                continue
            seen.add(target)
            self.used.add(target)
            dimensions = {each.name for each in instance.quota.dimensions}
            for place, override in enumerate(quota.overrides):
                for unknown in sorted(set(override.dimensions) - dimensions):
                    field_path = path("spec", "params", "quotas", number, "overrides", place, "dimensions", unknown)
                    self.found.refuse(identity, field_path, f"{target} has no such dimension: use one of its own")
            compiled.limits.append(handlers.limit(quota, self.instances[target]))

    def rule(self, identity: Identity, rule: models.Rule) -> None:
        compiled = pb.Rule(name=identity.name, namespace=identity.namespace)
        if not (rule.actions or rule.request_header_operations or rule.response_header_operations):
            self.found.refuse(identity, "spec.actions", "the rule does nothing: add an action or a header operation")
        if rule.match is not None:
            condition = self.expression(identity, "spec.match", rule.match, ValueType.BOOL)
            if condition is not None:
                self.condition(identity, condition, compiled)
        for number, action in enumerate(rule.actions):
            self.action(identity, number, action, compiled)
        for operations, target, name in (
            (rule.request_header_operations, compiled.request_headers, "requestHeaderOperations"),
            (rule.response_header_operations, compiled.response_headers, "responseHeaderOperations"),
        ):
            for number, operation in enumerate(operations):
                self.header(identity, path("spec", name, number), operation, target.add())
        self.policy.rules.append(compiled)
        self.places.add("rules", identity, self.found)

    def condition(self, identity: Identity, condition: Expression, compiled: pb.Rule) -> None:
        """Split off the leading equalities, which the engine looks up in hash tables."""
        conjuncts = (
            [*condition.arguments] if isinstance(condition, Apply) and condition.function == "&&" else [condition]
        )
        while len(compiled.leading) < MAX_LEADING and conjuncts and (equality := _equality(conjuncts[0])) is not None:
            attribute, text = equality
            compiled.leading.add(attribute=self.nodes.attribute(attribute), word=self.nodes.word(text))
            conjuncts.pop(0)
        if len(conjuncts) > 1:
            compiled.match = self.node(identity, "spec.match", Apply(ValueType.BOOL, "&&", tuple(conjuncts)))
        elif conjuncts and conjuncts[0] != Constant(ValueType.BOOL, True):
            compiled.match = self.node(identity, "spec.match", conjuncts[0])

    def action(self, identity: Identity, number: int, action: models.Action, compiled: pb.Rule) -> None:
        handler = self.found.find_handler(action.handler, identity)
        if handler is None:
            message = f"unknown handler {action.handler!r}: apply it too, or correct the name (name or name.namespace)"
            self.found.refuse(identity, path("spec", "actions", number, "handler"), message)
        else:
            self.used.add(handler)
        numbers = []
        for place, reference in enumerate(action.instances):
            where = path("spec", "actions", number, "instances", place)
            instance = self.find_instance(reference, identity, where)
            if instance is None or handler is None or handler not in self.handlers or instance not in self.instances:
                continue
            self.used.add(instance)
            if self.fits(identity, where, handler, instance):
                numbers.append(self.instances[instance])
        if handler in self.handlers and numbers:
            compiled.actions.add(handler=self.handlers[handler], instances=numbers)

    def find_instance(self, reference: str, referrer: Identity, where: str) -> Identity | None:
        found = self.found.find_instance(reference, referrer)
        if found is None:
            message = f"unknown instance {reference!r}: apply it too, or correct the name (name or name.namespace)"
            self.found.refuse(referrer, where, message)
        return found

    def fits(self, rule: Identity, where: str, handler: Identity, instance: Identity) -> bool:
        """Refuse an instance whose template the handler's adapter doesn't take, and a quota that has no limit."""
        adapter = self.found.handlers[handler].compiled_adapter
        template = self.found.instances[instance].compiled_template
        taken = NATIVE[adapter][1] if adapter in NATIVE else self.adapters[adapter].templates
        if template not in taken:
            takes = ", ".join(sorted(taken))
            message = f"{handler} ({adapter}) doesn't take template {template} of {instance}: it takes {takes}"
            self.found.refuse(rule, where, message)
            return False
        compiled = self.policy.handlers[self.handlers[handler]]
        if adapter == "memquota" and self.instances[instance] not in [each.instance for each in compiled.quotas.limits]:
            message = f"{instance} has no limit in {handler}: add it to the handler's spec.params.quotas"
            self.found.refuse(rule, where, message)
            return False
        return True

    def header(
        self, identity: Identity, where: str, operation: models.HeaderOperation, compiled: pb.HeaderOperation
    ) -> None:
        if (operation.operation == "REMOVE") == bool(operation.values):
            needs = "takes no values: remove them" if operation.values else "needs a value: add one"
            self.found.refuse(identity, f"{where}.values", f"{operation.operation} {needs}")
        compiled.name = operation.name
        compiled.operation = _HEADER_OPERATIONS[operation.operation]
        for number, source in enumerate(operation.values):
            node = self.value(identity, path(where, "values", number), source, frozenset({ValueType.STRING}))
            if node is not None:
                compiled.values.append(node)

    def value(self, identity: Identity, where: str, source: str, types: frozenset[ValueType]) -> int | None:
        expected = next(iter(types)) if len(types) == 1 else None
        expression = self.expression(identity, where, source, expected)
        if expression is None:
            return None
        if expression.type not in types:
            names = ", ".join(sorted(each.name for each in types))
            self.found.refuse(identity, where, f"the expression yields {expression.type.name}: it must yield {names}")
            return None
        return self.node(identity, where, expression)

    def expression(self, identity: Identity, where: str, source: str, expected: ValueType | None) -> Expression | None:
        try:
            return compile_expression(source, expected)
        except ExpressionError as error:
            self.found.refuse(identity, where, str(error))
            return None

    def node(self, identity: Identity, where: str, expression: Expression) -> int:
        before = len(self.policy.nodes)
        index = self.nodes.add(expression)
        for _ in range(before, len(self.policy.nodes)):
            self.places.add("nodes", identity, self.found, where)
        return index

    def warnings(self) -> tuple[Violation, ...]:
        idle = sorted({*self.found.instances, *self.found.handlers} - self.used)
        return tuple(
            Violation(identity, "metadata.name", "no rule uses it", self.found.sources[identity]) for identity in idle
        )


def _equality(expression: Expression) -> tuple[Attribute, str] | None:
    if isinstance(expression, Apply) and expression.function == "==":
        match expression.arguments:
            case (Attribute(ValueType.STRING) as attribute, Constant(value=str() as text)):
                return attribute, text
            case (Constant(value=str() as text), Attribute(ValueType.STRING) as attribute):
                return attribute, text
    return None


__all__ = ["GLOBAL_NAMESPACE", "Compiled", "Sink", "Template", "compile_policy"]
