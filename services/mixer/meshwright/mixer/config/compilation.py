"""One configuration on its way into a policy: instances, handlers and rules, each with the faults that are found.

One decision to know: whatever refers to something comes after it, so that what was left out is known by then.
"""

from __future__ import annotations

from collections.abc import Mapping

from meshwright.api.policy.v1 import policy_pb2 as pb
from meshwright.mixer.adapter.v1 import Adapter
from meshwright.mixer.cexl import ValueType
from meshwright.mixer.config import defaults
from meshwright.mixer.config.compiled import Compiled, Lists, Sink
from meshwright.mixer.config.document_expressions import DocumentExpressions
from meshwright.mixer.config.documents import Documents
from meshwright.mixer.config.expressions import Expressions
from meshwright.mixer.config.handler_compiler import HandlerCompiler
from meshwright.mixer.config.instance_compiler import InstanceCompiler
from meshwright.mixer.config.nodes import Nodes
from meshwright.mixer.config.places import Places
from meshwright.mixer.config.rule_compiler import RuleCompiler
from meshwright.mixer.config.rule_parts import RuleParts
from meshwright.mixer.config.violation import Identity, Violation
from meshwright.mixer.remote.documents import RemoteDocuments
from meshwright.mixer.remote.handlers import REPORTS, Reports


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
        self._found, self._policy, self._nodes, self._parts = found, policy, nodes, parts
        self._places = Places(found, nodes.arguments)
        self._remotes = RemoteDocuments(found)
        shared = self._places, self._remotes
        self._written = DocumentExpressions(found, expressions, nodes, self._places)
        self._instances = InstanceCompiler(found, policy, self._written, *shared)
        self._handlers = HandlerCompiler(found, adapters, policy, self._instances, *shared, lists)
        self._rules = RuleCompiler(found, adapters, self._written, self._instances, self._handlers, *shared, parts)

    def compile(self) -> Compiled:
        """Instances, then handlers, then rules: each comes after what it refers to."""
        for owned in self._written.expressions.specs.parts:
            self._places.owned.append((self._nodes.add(owned.expression), owned.owner, owned.field))
        for identity, instance in sorted(self._found.instances.items()):
            if identity not in self._found.dropped:
                self._instances.add(identity, instance)
        for identity, handler in sorted(self._found.handlers.items()):
            if identity not in self._found.dropped:
                self._handlers.add(identity, handler)
        if self._remotes.compiled():
            self._give_all()
        self._parts.begin(self._nodes, self._found.objects, self._found.dropped)
        rules: list[bytes] = []
        for identity, rule in sorted(self._found.rules.items()):
            if identity not in self._found.dropped and (part := self._rules.part(identity, rule)) is not None:
                rules.append(part.chunk)
                self._places.add("rules", identity)
        remotes = self._remotes.compiled()
        reports = {name: Sink(REPORTS, Reports.of(each)) for name, each in remotes.items() if each.plans}
        return Compiled(
            # Parts of a serialized message are a message: lists go on where the part before ended.
            policy=b"".join((self._nodes.serialize(), self._policy.SerializeToString(), *rules)),
            rules=len(rules),
            places=self._places,
            sinks=self._handlers.sinks() | reports,
            warnings=self._warnings(),
            dropped=tuple(self._found.violations),
            is_left=self._is_left(),
            providers=self._handlers.providers,
            remotes=remotes,
        )

    def _give_all(self) -> None:
        """See to it that remote handlers can be asked about all that rules give them."""
        for identity, rule in self._found.rules.items():
            for action in rule.actions:
                handler = self._found.find_handler(action.handler, identity)
                if handler is None or handler not in self._handlers.numbers or not self._remotes.is_remote(handler):
                    continue
                for reference in action.instances:
                    instance = self._found.find_instance(reference, identity)
                    if instance is None or instance not in self._instances.numbers:
                        continue
                    if self._remotes.takes(handler, instance):
                        self._give(handler, instance)

    def _give(self, handler: Identity, instance: Identity) -> None:
        """See to it that a remote handler can be asked about the instance."""
        compiled, given = self._instances.message(instance), self._found.instances[instance]
        if not compiled.HasField("encoding"):

            def known(name: str, where: str, source: str, types: frozenset[ValueType]) -> ValueType | None:
                expression = self._written.typed(instance, where, source, types)
                return None if expression is None else expression.type

            plan = self._remotes.encoding(instance, given, known)
            if plan is None:
                return
            compiled.encoding.CopyFrom(plan)
        self._remotes.give(handler, instance, compiled.encoding)

    def _is_left(self) -> bool:
        """Whether a rule that somebody wrote is in force, or none was written."""
        rules = (identity for identity in self._found.sources if identity.kind in ("rule", "Policy"))
        written = [identity for identity in rules if self._found.sources[identity] != defaults.SOURCE]
        return not written or any(identity not in self._found.dropped for identity in written)

    def _warnings(self) -> tuple[Violation, ...]:
        idle = sorted({*self._found.instances, *self._found.handlers} - self._handlers.used - self._rules.used)
        found = [(identity, "metadata.name", "no rule uses it") for identity in idle]
        found += self._written.expressions.specs.unused
        return tuple(Violation(*each, self._found.sources[each[0]]) for each in found)
