"""Rules on their way into a policy: conditions, actions, header operations and sampling."""

from __future__ import annotations

from collections.abc import Mapping

from meshwright.api.policy.v1 import policy_pb2 as pb
from meshwright.mixer.adapter.v1 import Adapter
from meshwright.mixer.cexl import ValueType
from meshwright.mixer.cexl.typed import Expression, Output
from meshwright.mixer.config import keys, models, outputs, sampling
from meshwright.mixer.config.adapters import NATIVE
from meshwright.mixer.config.document_expressions import DocumentExpressions
from meshwright.mixer.config.documents import Documents
from meshwright.mixer.config.handler_compiler import HandlerCompiler
from meshwright.mixer.config.instance_compiler import InstanceCompiler
from meshwright.mixer.config.kinds import HANDLER
from meshwright.mixer.config.places import Places
from meshwright.mixer.config.rule_parts import RulePart, RuleParts
from meshwright.mixer.config.violation import Identity, path
from meshwright.mixer.remote.documents import RemoteDocuments
from meshwright.mixer.templates import Variety

_HEADER_OPERATIONS = {
    "REPLACE": pb.HeaderOperation.REPLACE,
    "REMOVE": pb.HeaderOperation.REMOVE,
    "APPEND": pb.HeaderOperation.APPEND,
}


class RuleCompiler:
    """Compiles rules, each to a part of the policy; `used` are the handlers and instances that they name."""

    def __init__(
        self,
        found: Documents,
        adapters: Mapping[str, Adapter],
        written: DocumentExpressions,
        instances: InstanceCompiler,
        handlers: HandlerCompiler,
        places: Places,
        remotes: RemoteDocuments,
        parts: RuleParts,
    ) -> None:
        self._found, self._adapters, self._written = found, adapters, written
        self._instances, self._handlers = instances, handlers
        self._places, self._remotes, self._parts = places, remotes, parts
        self.used: set[Identity] = set()

    def part(self, identity: Identity, rule: models.Rule) -> RulePart | None:
        """The rule compiled, or as it was compiled before; None when it has a fault."""
        known = self._parts.find(identity, rule)
        if known is not None:
            self._places.roots.extend(known.uses)
            self.used |= known.references
            return known
        used, self.used, first = self.used, set(), len(self._places.roots)
        compiled = self._rule(identity, rule)
        references, self.used = frozenset(self.used), used | self.used
        if identity in self._found.dropped:
            return None
        chunk = pb.Policy(rules=[compiled]).SerializeToString()
        uses = tuple(self._places.roots[first:])
        return self._parts.keep(identity, RulePart(rule, chunk, uses, references))

    def _rule(self, identity: Identity, rule: models.Rule) -> pb.Rule:
        compiled = pb.Rule(name=identity.name, namespace=identity.namespace, dry_run=rule.mode == "dry-run")
        if not (rule.actions or rule.request_header_operations or rule.response_header_operations):
            self._found.refuse(identity, "spec.actions", "the rule does nothing: add an action or a header operation")
        if rule.match is not None:
            condition = self._written.compile(identity, "spec.match", rule.match, ValueType.BOOL)
            if condition is not None:
                self._condition(identity, condition, compiled)
        if rule.sampling is not None:
            self._sampling(identity, rule.sampling, compiled)
        put_out: dict[Output, pb.Action] = {}
        names: dict[str, Output] = {}
        for number, action in enumerate(rule.actions):
            available = self._action(identity, number, action, compiled)
            names.update(available)
            put_out.update(dict.fromkeys(available.values(), compiled.actions[-1]) if available else {})
        for operations, target, name in (
            (rule.request_header_operations, compiled.request_headers, "requestHeaderOperations"),
            (rule.response_header_operations, compiled.response_headers, "responseHeaderOperations"),
        ):
            for number, operation in enumerate(operations):
                for output in self._header(identity, path("spec", name, number), operation, target.add(), names):
                    index = self._written.nodes.output(output)
                    if index not in put_out[output].outputs:
                        put_out[output].outputs.append(index)
        return compiled

    def _sampling(self, identity: Identity, given: models.Sampling, compiled: pb.Rule) -> None:
        rate = key = None
        if given.random is not None:
            where, source = "spec.sampling.random.attributeExpression", given.random.attribute_expression
            if source is not None:
                rate = self._written.value(identity, where, source, frozenset({ValueType.INT64, ValueType.DOUBLE}))
            if not given.random.use_independent_randomness:
                key = self._written.node(identity, "spec.sampling.random", sampling.KEY)
        compiled.sampling.CopyFrom(sampling.compiled(given, rate, key))

    def _condition(self, identity: Identity, condition: Expression, compiled: pb.Rule) -> None:
        """Split off what the engine looks up in tables instead of evaluating it."""
        found = self._written.expressions.once(condition, keys.split)
        for group, target in ((found.keys, compiled.keys), (found.either, compiled.either)):
            for key in group:
                target.add(
                    subject=self._written.node(identity, "spec.match", key.subject),
                    equals=[self._written.nodes.word(text) for text in key.equals],
                    prefixes=[self._written.nodes.word(text) for text in key.prefixes],
                )
        if found.rest is not None:
            compiled.match = self._written.node(identity, "spec.match", found.rest)

    def _action(self, identity: Identity, number: int, action: models.Action, compiled: pb.Rule) -> outputs.Outputs:
        """Compile an action; returns what header operations can read of it."""
        handler = self._found.find_handler(action.handler, identity)
        if handler is None:
            self._found.unknown(identity, path("spec", "actions", number, "handler"), HANDLER, action.handler)
        else:
            self.used.add(handler)
            if handler in self._found.dropped:
                self._found.miss(identity, path("spec", "actions", number, "handler"), handler)
        numbers = []
        for place, reference in enumerate(action.instances):
            where = path("spec", "actions", number, "instances", place)
            instance = self._instances.find(reference, identity, where)
            if instance is None:
                continue
            self.used.add(instance)
            if instance in self._found.dropped:
                self._found.miss(identity, where, instance)
            if (
                handler in self._handlers.numbers
                and instance in self._instances.numbers
                and self._fits(identity, where, handler, instance)
            ):
                numbers.append(self._instances.numbers[instance])
        if handler not in self._handlers.numbers or not numbers:
            return {}
        if action.name and any(each.name == action.name for each in compiled.actions):
            self._found.refuse(identity, path("spec", "actions", number, "name"), "another action has this name")
        compiled.actions.add(handler=self._handlers.numbers[handler], instances=numbers, name=action.name)
        template = self._instances.templates[numbers[0]]
        if not action.name or template.variety is not Variety.CHECK_WITH_OUTPUT:
            return {}
        if len(numbers) > 1:
            where = path("spec", "actions", number, "instances")
            self._found.refuse(identity, where, "the output of which? An action with a name needs one instance only")
        return outputs.of_action(str(identity), action.name, template.outputs)

    def _fits(self, rule: Identity, where: str, handler: Identity, instance: Identity) -> bool:
        """Refuse an instance whose template the handler's adapter doesn't take, and a quota that has no limit."""
        if self._remotes.is_remote(handler):
            return self._remotes.fits(rule, where, handler, instance)
        adapter = self._found.handlers[handler].compiled_adapter
        template = self._found.instances[instance].compiled_template or self._found.instances[instance].template
        taken = NATIVE[adapter][1] if adapter in NATIVE else self._adapters[adapter].templates
        if template not in taken:
            takes = ", ".join(sorted(taken))
            message = f"{handler} ({adapter}) doesn't take template {template} of {instance}: it takes {takes}"
            self._found.refuse(rule, where, message)
            return False
        limited = {each.instance for each in self._handlers.message(handler).quotas.limits}
        if adapter == "memquota" and self._instances.numbers[instance] not in limited:
            message = f"{instance} has no limit in {handler}: add it to the handler's spec.params.quotas"
            self._found.refuse(rule, where, message)
            return False
        return True

    def _header(
        self,
        identity: Identity,
        where: str,
        operation: models.HeaderOperation,
        compiled: pb.HeaderOperation,
        available: outputs.Outputs,
    ) -> list[Output]:
        """Compile a header operation; returns the outputs that it reads."""
        if (operation.operation == "REMOVE") == bool(operation.values):
            needs = "takes no values: remove them" if operation.values else "needs a value: add one"
            self._found.refuse(identity, f"{where}.values", f"{operation.operation} {needs}")
        compiled.name = operation.name
        compiled.operation = _HEADER_OPERATIONS[operation.operation]
        found: list[Output] = []
        for number, source in enumerate(operation.values):
            place = path(where, "values", number)
            expression = self._written.compile(identity, place, source, ValueType.STRING, available)
            if expression is not None:
                compiled.values.append(self._written.node(identity, place, expression))
                found += outputs.read(expression)
        return found
