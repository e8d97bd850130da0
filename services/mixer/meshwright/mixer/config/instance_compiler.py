"""Instances on their way into a policy: templates filled with expressions, mixer's own and those that are documents."""

from __future__ import annotations

from meshwright.api.policy.v1 import policy_pb2 as pb
from meshwright.mixer.cexl import ValueType
from meshwright.mixer.cexl.typed import Attribute
from meshwright.mixer.config import models, outputs
from meshwright.mixer.config.document_expressions import DocumentExpressions
from meshwright.mixer.config.documents import Documents, shown
from meshwright.mixer.config.kinds import INSTANCE
from meshwright.mixer.config.places import Places
from meshwright.mixer.config.violation import Identity, path
from meshwright.mixer.remote.documents import RemoteDocuments
from meshwright.mixer.templates import TEMPLATES, Template, Variety


class InstanceCompiler:
    """`numbers` are the policy's instances by document, `templates` theirs in that order."""

    def __init__(
        self,
        found: Documents,
        policy: pb.Policy,
        written: DocumentExpressions,
        places: Places,
        remotes: RemoteDocuments,
    ) -> None:
        self._found, self._policy, self._written = found, policy, written
        self._places, self._remotes = places, remotes
        self.numbers: dict[Identity, int] = {}
        self.templates: list[Template] = []

    def message(self, identity: Identity) -> pb.Instance:
        """The instance as it is in the policy."""
        return self._policy.instances[self.numbers[identity]]

    def find(self, reference: str, referrer: Identity, where: str) -> Identity | None:
        """The document that `referrer` means at `where`; it is refused when there is none."""
        found = self._found.find_instance(reference, referrer)
        if found is None:
            self._found.unknown(referrer, where, INSTANCE, reference)
        return found

    def add(self, identity: Identity, instance: models.Instance) -> None:
        """Put the instance into the policy, or refuse it."""
        if instance.template:
            self._add_remote(identity, instance)
            return
        template = TEMPLATES.get(instance.compiled_template)
        if template is None:
            known = ", ".join(sorted(TEMPLATES))
            message = f"unknown template {instance.compiled_template!r}: use one of {known}"
            self._found.refuse(identity, "spec.compiledTemplate", message)
            return
        parameters = self._found.parameters(identity, template.parameters, instance.params)
        if parameters is None:
            return
        fields: list[pb.Field] = []
        for each in template.fields(parameters):
            node = self._written.value(identity, self._found.at(identity, *each.path), each.source, each.types)
            if node is not None:
                fields.append(pb.Field(name=each.name, value=node))
        compiled = pb.Instance(
            # Callers ask quotas by name.
            name=identity.name if template.variety is Variety.QUOTA else shown(identity),
            namespace=identity.namespace,
            template=template.name,
            variety=template.variety.name,
            fields=fields,
        )
        self._keep(identity, instance, template, compiled)

    def _bindings(
        self, identity: Identity, instance: models.Instance, template: Template, compiled: pb.Instance
    ) -> None:
        """Compile what attributes an attribute generator makes."""
        if instance.attribute_bindings and template.variety is not Variety.ATTRIBUTE_GENERATOR:
            message = f"template {template.name} makes no attributes: remove them, or use for example kubernetes"
            self._found.refuse(identity, "spec.attributeBindings", message)
            return
        available = outputs.bound(template.outputs)
        for name, source in sorted(instance.attribute_bindings.items()):
            where = path("spec", "attributeBindings", name)
            kind = self._found.vocabulary.get(name)
            if kind is None:
                self._found.refuse(identity, where, "unknown attribute: name one that an attributemanifest declares")
                continue
            expression = self._written.compile(identity, where, source, kind, available)
            if expression is None:
                continue
            compiled.bindings.add(
                attribute=self._written.nodes.attribute(Attribute(kind, name)),
                value=self._written.node(identity, where, expression),
            )
            for output in outputs.read(expression):
                number = self._written.nodes.output(output)
                if number not in compiled.outputs:
                    compiled.outputs.append(number)

    def _add_remote(self, identity: Identity, instance: models.Instance) -> None:
        """An instance of a template that came as a document: its plan says which fields there are."""
        nodes: dict[str, int] = {}

        def add(name: str, where: str, source: str, types: frozenset[ValueType]) -> ValueType | None:
            expression = self._written.typed(identity, where, source, types)
            if expression is None:
                return None
            nodes[name] = self._written.node(identity, where, expression)
            return expression.type

        found = self._remotes.template(identity, instance)
        plan = self._remotes.encoding(identity, instance, add)
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
        self._keep(identity, instance, template, compiled)

    def _keep(self, identity: Identity, instance: models.Instance, template: Template, compiled: pb.Instance) -> None:
        """Compile the bindings, and put the instance into the policy if nothing was wrong with it."""
        self._bindings(identity, instance, template, compiled)
        charge = self._written.expressions.specs.charges.get(identity.name.casefold())
        if template.variety is Variety.QUOTA and charge is not None:
            compiled.charge = self._written.nodes.add(charge)
        if identity in self._found.dropped:
            return
        self._policy.instances.append(compiled)
        self.templates.append(template)
        self.numbers[identity] = self._places.add("instances", identity)
