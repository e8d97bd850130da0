"""One configuration on its way into a policy: instances, handlers and rules, each with the faults that are found.

One decision to know: whatever refers to something comes after it, so that what was left out is known by then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pydantic

from meshwright.api.policy.v1 import policy_pb2 as pb
from meshwright.mixer.adapter.v1 import Adapter
from meshwright.mixer.cexl import ExpressionError, ValueType
from meshwright.mixer.cexl.typed import Attribute, Expression, Output
from meshwright.mixer.config import defaults, handlers, keys, models, outputs, sampling
from meshwright.mixer.config.adapters import NATIVE, ListChecker, MemQuota
from meshwright.mixer.config.client_specs import client_specs
from meshwright.mixer.config.compiled import Compiled, Lists, Sink
from meshwright.mixer.config.completing import Completing
from meshwright.mixer.config.documents import Documents, is_legacy, shown
from meshwright.mixer.config.expressions import Expressions
from meshwright.mixer.config.kinds import HANDLER, INSTANCE, VENDORS
from meshwright.mixer.config.nodes import Nodes
from meshwright.mixer.config.places import Places
from meshwright.mixer.config.prometheus import Prometheus
from meshwright.mixer.config.rule_parts import RulePart, RuleParts
from meshwright.mixer.config.violation import Identity, Violation, path
from meshwright.mixer.remote import bypass
from meshwright.mixer.remote.documents import RemoteDocuments
from meshwright.mixer.remote.handlers import REPORTS, Reports
from meshwright.mixer.templates import TEMPLATES, Template, Variety

_HEADER_OPERATIONS = {
    "REPLACE": pb.HeaderOperation.REPLACE,
    "REMOVE": pb.HeaderOperation.REMOVE,
    "APPEND": pb.HeaderOperation.APPEND,
}


class Compilation:
    """Made for one configuration, and used once: `compile`."""

    def __init__(
        self,
        found: Documents,
        adapters: Mapping[str, Adapter],
        policy: pb.Policy,
        expressions: Expressions,
        nodes: Nodes,
        parts: RuleParts,
        lists: Lists,
    ) -> None:
        self.found, self.lists = found, lists
        self.providers: dict[str, ListChecker] = {}
        self.adapters = adapters
        self.policy = policy
        self.expressions, self.nodes, self.parts = expressions, nodes, parts
        self.instances: dict[Identity, int] = {}
        self.templates: list[Template] = []  # of the policy's instances
        self.handlers: dict[Identity, int] = {}
        self.parameters: dict[Identity, pydantic.BaseModel] = {}
        self.used: set[Identity] = set()
        self.places = Places(found, nodes.arguments)
        self.remotes = RemoteDocuments(found)

    def compile(self) -> Compiled:
        """Instances, then handlers, then rules: each comes after what it refers to."""
        for identity, instance in sorted(self.found.instances.items()):
            if identity not in self.found.dropped:
                self._instance(identity, instance)
        for identity, handler in sorted(self.found.handlers.items()):
            if identity not in self.found.dropped:
                self._handler(identity, handler)
        if self.remotes.compiled():
            self._give_all()
        self.parts.begin(self.nodes, self.found.objects, self.found.dropped)
        rules: list[bytes] = []
        for identity, rule in sorted(self.found.rules.items()):
            if identity not in self.found.dropped and (part := self._rule_part(identity, rule)) is not None:
                rules.append(part.chunk)
                self.places.add("rules", identity)
        sinks = {
            f"{shown(identity)}.{identity.namespace}": Sink(
                self.found.handlers[identity].compiled_adapter,
                self.parameters[identity],
                self.found.handlers[identity].max_in_flight,
            )
            for identity in self.handlers
            if identity in self.parameters
        }
        remotes = self.remotes.compiled()
        sinks |= {name: Sink(REPORTS, Reports.of(each)) for name, each in remotes.items() if each.plans}
        return Compiled(
            # Parts of a serialized message are a message: lists go on where the part before ended.
            policy=b"".join((self.nodes.serialize(), self.policy.SerializeToString(), *rules)),
            rules=len(rules),
            places=self.places,
            sinks=sinks,
            warnings=self._warnings(),
            dropped=tuple(self.found.violations),
            is_left=self._is_left(),
            specs=client_specs(self.found),
            providers=self.providers,
            remotes=remotes,
        )

    def _instance(self, identity: Identity, instance: models.Instance) -> None:
        if instance.template:
            self._remote_instance(identity, instance)
            return
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
            if (node := self._value(identity, self.found.at(identity, *each.path), each.source, each.types)) is not None
        ]
        compiled = pb.Instance(
            # Callers ask quotas by name.
            name=identity.name if template.variety is Variety.QUOTA else shown(identity),
            namespace=identity.namespace,
            template=template.name,
            variety=template.variety.name,
            fields=fields,
        )
        self._bindings(identity, instance, template, compiled)
        if identity in self.found.dropped:
            return
        self.policy.instances.append(compiled)
        self.templates.append(template)
        self.instances[identity] = self.places.add("instances", identity)

    def _bindings(
        self, identity: Identity, instance: models.Instance, template: Template, compiled: pb.Instance
    ) -> None:
        """Compile what attributes an attribute generator makes."""
        if instance.attribute_bindings and template.variety is not Variety.ATTRIBUTE_GENERATOR:
            message = f"template {template.name} makes no attributes: remove them, or use for example kubernetes"
            self.found.refuse(identity, "spec.attributeBindings", message)
            return
        available = outputs.bound(template.outputs)
        for name, source in sorted(instance.attribute_bindings.items()):
            where = path("spec", "attributeBindings", name)
            kind = self.expressions.vocabulary.get(name)
            if kind is None:
                self.found.refuse(identity, where, "unknown attribute: name one that an attributemanifest declares")
                continue
            expression = self._expression(identity, where, source, kind, available)
            if expression is None:
                continue
            compiled.bindings.add(
                attribute=self.nodes.attribute(Attribute(kind, name)), value=self._node(identity, where, expression)
            )
            for output in outputs.read(expression):
                number = self.nodes.output(output)
                if number not in compiled.outputs:
                    compiled.outputs.append(number)

    def _remote_instance(self, identity: Identity, instance: models.Instance) -> None:
        """An instance of a template that came as a document: its plan says which fields there are."""
        nodes: dict[str, int] = {}

        def add(name: str, where: str, source: str, types: frozenset[ValueType]) -> ValueType | None:
            expression = self._typed(identity, where, source, types)
            if expression is None:
                return None
            nodes[name] = self._node(identity, where, expression)
            return expression.type

        found = self.remotes.template(identity, instance)
        plan = self.remotes.encoding(identity, instance, add)
        if found is None or plan is None:
            return
        template = Template(instance.template, Variety[pb.Variety.Name(found.variety)], outputs=found.outputs)
        compiled = pb.Instance(
            name=identity.name,
            namespace=identity.namespace,
            template=instance.template,
            variety=template.variety.name,
            fields=[pb.Field(name=name, value=node) for name, node in nodes.items()],
            encoding=plan,
        )
        self._bindings(identity, instance, template, compiled)
        if identity in self.found.dropped:
            return
        self.policy.instances.append(compiled)
        self.templates.append(template)
        self.instances[identity] = self.places.add("instances", identity)

    def _handler(self, identity: Identity, handler: models.Handler) -> None:
        name = handler.compiled_adapter
        compiled = pb.Handler()
        if handler.adapter or name == bypass.NAME:
            remote = self.remotes.handler(identity, handler)
            if remote is None:
                return
            compiled = handlers.remote(identity, handler, remote)
        elif name in NATIVE:
            native = self.found.parameters(identity, NATIVE[name][0], handler.params)
            if native is None:
                return
            name = f"{shown(identity)}.{identity.namespace}"
            provided: Sequence[str] | None = ()
            if isinstance(native, ListChecker) and native.provider_url is not None:
                self.providers[name] = native
                provided = self.lists.get(name)
            compiled = handlers.native(identity, native, provided)
            if isinstance(native, MemQuota):
                self._limits(identity, native, compiled.quotas)
            elif isinstance(native, Prometheus):
                self._metrics(identity, native, compiled.report.prometheus)
        elif name in self.adapters:
            parameters = self.found.parameters(identity, self.adapters[name].parameters, handler.params)
            if parameters is None:
                return
            self.parameters[identity] = self._completed(self.adapters[name], parameters)
            compiled = handlers.python(identity, handler, self.adapters[name])
        else:
            known = ", ".join(sorted([*NATIVE, *self.adapters]))
            others = ", whose work opentelemetry and a collector do" if name in VENDORS else ""
            message = f"unknown adapter {name!r}{others}: use one of {known}, or install the package that brings it"
            self.found.refuse(identity, "kind" if is_legacy(identity) else "spec.compiledAdapter", message)
        if identity in self.found.dropped:
            return
        self.policy.handlers.append(compiled)
        self.handlers[identity] = self.places.add("handlers", identity)

    def _completed(self, adapter: Adapter, parameters: pydantic.BaseModel) -> pydantic.BaseModel:
        """The parameters with the documents that the adapter depends on, which are in use then."""
        if not isinstance(adapter, Completing):
            return parameters
        documents = {
            kind: {(identity.namespace, identity.name): model for identity, model in models.items()}
            for kind, models in self.found.models.items()
        }
        return adapter.complete(parameters, documents)

    def _limits(self, identity: Identity, parameters: MemQuota, compiled: pb.Handler.Quotas) -> None:
        seen: set[Identity] = set()
        for number, quota in enumerate(parameters.quotas):
            where = self.found.at(identity, "quotas", number, "name")
            target = self._find_instance(quota.name, identity, where)
            if target is None or target not in self.instances:
                continue  # unknown, which was told; or left out, and then nobody can charge it
            instance = self.policy.instances[self.instances[target]]
            if instance.variety != pb.QUOTA:
                self.found.refuse(identity, where, f"{target} is not a quota: name an instance of template quota")
                continue
            if target in seen:
                self.found.refuse(identity, where, f"{target} is limited twice: keep one entry")
                continue
            seen.add(target)
            self.used.add(target)
            dimensions = {each.name.removeprefix("dimensions.") for each in instance.fields}
            for place, override in enumerate(quota.overrides):
                for unknown in sorted(set(override.dimensions) - dimensions):
                    field_path = self.found.at(identity, "quotas", number, "overrides", place, "dimensions", unknown)
                    self.found.refuse(identity, field_path, f"{target} has no such dimension: use one of its own")
            compiled.limits.append(handlers.limit(quota, self.instances[target]))

    def _metrics(self, identity: Identity, parameters: Prometheus, compiled: pb.Handler.Prometheus) -> None:
        """Metrics with their instances, which have the dimensions that labels show."""
        names: set[str] = set()
        for number, metric in enumerate(parameters.metrics):
            where = self.found.at(identity, "metrics", number, "instanceName")
            target = self._find_instance(metric.instance_name, identity, where)
            if target is None or target not in self.instances:
                continue  # unknown, which was told; or left out, and then nothing comes of it
            instance = self.policy.instances[self.instances[target]]
            if instance.template != "metric":
                self.found.refuse(identity, where, f"{target} is no metric: name an instance of template metric")
                continue
            self.used.add(target)
            dimensions = {field.name.removeprefix("dimensions.") for field in instance.fields}
            for unknown in sorted(set(metric.label_names) - dimensions):
                labels = self.found.at(identity, "metrics", number, "labelNames")
                message = f"{target} has no dimension {unknown!r}: use one of its own, or add it there"
                self.found.refuse(identity, labels, message)
            name = metric.full_name(shown(target))
            if name in names:
                message = f"{name} is there already: give each metric a name of its own"
                self.found.refuse(identity, self.found.at(identity, "metrics", number, "name"), message)
            names.add(name)
            compiled.metrics.append(metric.compiled(name, self.instances[target]))

    def _rule_part(self, identity: Identity, rule: models.Rule) -> RulePart | None:
        """The rule compiled, or as it was compiled before; None when it has a fault."""
        known = self.parts.find(identity, rule)
        if known is not None:
            self.places.roots.extend(known.uses)
            self.used |= known.references
            return known
        used, self.used, first = self.used, set(), len(self.places.roots)
        compiled = self._rule(identity, rule)
        references, self.used = frozenset(self.used), used | self.used
        if identity in self.found.dropped:
            return None
        chunk = pb.Policy(rules=[compiled]).SerializeToString()
        uses = tuple(self.places.roots[first:])
        return self.parts.keep(identity, RulePart(rule, chunk, uses, references))

    def _rule(self, identity: Identity, rule: models.Rule) -> pb.Rule:
        compiled = pb.Rule(name=identity.name, namespace=identity.namespace, dry_run=rule.mode == "dry-run")
        if not (rule.actions or rule.request_header_operations or rule.response_header_operations):
            self.found.refuse(identity, "spec.actions", "the rule does nothing: add an action or a header operation")
        if rule.match is not None:
            condition = self._expression(identity, "spec.match", rule.match, ValueType.BOOL)
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
                    index = self.nodes.output(output)
                    if index not in put_out[output].outputs:
                        put_out[output].outputs.append(index)
        return compiled

    def _sampling(self, identity: Identity, given: models.Sampling, compiled: pb.Rule) -> None:
        rate = key = None
        if given.random is not None:
            where, source = "spec.sampling.random.attributeExpression", given.random.attribute_expression
            if source is not None:
                rate = self._value(identity, where, source, frozenset({ValueType.INT64, ValueType.DOUBLE}))
            if not given.random.use_independent_randomness:
                key = self._node(identity, "spec.sampling.random", sampling.KEY)
        compiled.sampling.CopyFrom(sampling.compiled(given, rate, key))

    def _condition(self, identity: Identity, condition: Expression, compiled: pb.Rule) -> None:
        """Split off what the engine looks up in tables instead of evaluating it."""
        found = self.expressions.once(condition, keys.split)
        for group, target in ((found.keys, compiled.keys), (found.either, compiled.either)):
            for key in group:
                target.add(
                    subject=self._node(identity, "spec.match", key.subject),
                    equals=[self.nodes.word(text) for text in key.equals],
                    prefixes=[self.nodes.word(text) for text in key.prefixes],
                )
        if found.rest is not None:
            compiled.match = self._node(identity, "spec.match", found.rest)

    def _action(self, identity: Identity, number: int, action: models.Action, compiled: pb.Rule) -> outputs.Outputs:
        """Compile an action; returns what header operations can read of it."""
        handler = self.found.find_handler(action.handler, identity)
        if handler is None:
            self.found.unknown(identity, path("spec", "actions", number, "handler"), HANDLER, action.handler)
        else:
            self.used.add(handler)
            if handler in self.found.dropped:
                self.found.miss(identity, path("spec", "actions", number, "handler"), handler)
        numbers = []
        for place, reference in enumerate(action.instances):
            where = path("spec", "actions", number, "instances", place)
            instance = self._find_instance(reference, identity, where)
            if instance is None:
                continue
            self.used.add(instance)
            if instance in self.found.dropped:
                self.found.miss(identity, where, instance)
            if (
                handler in self.handlers
                and instance in self.instances
                and self._fits(identity, where, handler, instance)
            ):
                numbers.append(self.instances[instance])
        if handler not in self.handlers or not numbers:
            return {}
        if action.name and any(each.name == action.name for each in compiled.actions):
            self.found.refuse(identity, path("spec", "actions", number, "name"), "another action has this name")
        compiled.actions.add(handler=self.handlers[handler], instances=numbers, name=action.name)
        template = self.templates[numbers[0]]
        if not action.name or template.variety is not Variety.CHECK_WITH_OUTPUT:
            return {}
        if len(numbers) > 1:
            where = path("spec", "actions", number, "instances")
            self.found.refuse(identity, where, "the output of which? An action with a name needs one instance only")
        return outputs.of_action(str(identity), action.name, template.outputs)

    def _give_all(self) -> None:
        """See to it that remote handlers can be asked about all that rules give them."""
        for identity, rule in self.found.rules.items():
            for action in rule.actions:
                handler = self.found.find_handler(action.handler, identity)
                if handler is None or handler not in self.handlers or not self.remotes.is_remote(handler):
                    continue
                for reference in action.instances:
                    instance = self.found.find_instance(reference, identity)
                    if instance is not None and instance in self.instances and self.remotes.takes(handler, instance):
                        self._give(handler, instance)

    def _give(self, handler: Identity, instance: Identity) -> None:
        """See to it that a remote handler can be asked about the instance."""
        compiled, given = self.policy.instances[self.instances[instance]], self.found.instances[instance]
        if not compiled.HasField("encoding"):

            def known(name: str, where: str, source: str, types: frozenset[ValueType]) -> ValueType | None:
                expression = self._typed(instance, where, source, types)
                return None if expression is None else expression.type

            plan = self.remotes.encoding(instance, given, known)
            if plan is None:
                return
            compiled.encoding.CopyFrom(plan)
        self.remotes.give(handler, instance, compiled.encoding)

    def _find_instance(self, reference: str, referrer: Identity, where: str) -> Identity | None:
        found = self.found.find_instance(reference, referrer)
        if found is None:
            self.found.unknown(referrer, where, INSTANCE, reference)
        return found

    def _fits(self, rule: Identity, where: str, handler: Identity, instance: Identity) -> bool:
        """Refuse an instance whose template the handler's adapter doesn't take, and a quota that has no limit."""
        if self.remotes.is_remote(handler):
            return self.remotes.fits(rule, where, handler, instance)
        adapter = self.found.handlers[handler].compiled_adapter
        template = self.found.instances[instance].compiled_template or self.found.instances[instance].template
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
            self.found.refuse(identity, f"{where}.values", f"{operation.operation} {needs}")
        compiled.name = operation.name
        compiled.operation = _HEADER_OPERATIONS[operation.operation]
        found: list[Output] = []
        for number, source in enumerate(operation.values):
            place = path(where, "values", number)
            expression = self._expression(identity, place, source, ValueType.STRING, available)
            if expression is not None:
                compiled.values.append(self._node(identity, place, expression))
                found += outputs.read(expression)
        return found

    def _value(self, identity: Identity, where: str, source: str, types: frozenset[ValueType]) -> int | None:
        expression = self._typed(identity, where, source, types)
        return None if expression is None else self._node(identity, where, expression)

    def _typed(self, identity: Identity, where: str, source: str, types: frozenset[ValueType]) -> Expression | None:
        expected = next(iter(types)) if len(types) == 1 else None
        expression = self._expression(identity, where, source, expected)
        if expression is None:
            return None
        if expression.type not in types:
            names = ", ".join(sorted(each.name for each in types))
            self.found.refuse(identity, where, f"the expression yields {expression.type.name}: it must yield {names}")
            return None
        return expression

    def _expression(
        self,
        identity: Identity,
        where: str,
        source: str,
        expected: ValueType | None,
        available: outputs.Outputs | None = None,
    ) -> Expression | None:
        document = self.found.rules.get(identity) or self.found.instances.get(identity)
        language = "CEXL" if document is None else document.language
        try:
            if available:
                return outputs.compile_with(available, self.expressions, source, expected, language)
            return self.expressions.compile(source, expected, language)
        except ExpressionError as error:
            self.found.refuse(identity, where, str(error))
            return None

    def _node(self, identity: Identity, where: str, expression: Expression) -> int:
        index = self.nodes.add(expression)
        self.places.roots.append((index, identity, where))
        return index

    def _is_left(self) -> bool:
        """Whether a rule that somebody wrote is in force, or none was written."""
        rules = (identity for identity in self.found.sources if identity.kind in ("rule", "Policy"))
        written = [identity for identity in rules if self.found.sources[identity] != defaults.SOURCE]
        return not written or any(identity not in self.found.dropped for identity in written)

    def _warnings(self) -> tuple[Violation, ...]:
        idle = sorted({*self.found.instances, *self.found.handlers} - self.used)
        return tuple(
            Violation(identity, "metadata.name", "no rule uses it", self.found.sources[identity]) for identity in idle
        )
