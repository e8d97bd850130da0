"""Documents of kinds template and adapter with the handlers and instances that name them, read into what is compiled.

One decision to know: templates are told apart by the method that takes their instances. So an instance of a template
that mixer has (`compiledTemplate`) fits an adapter that names the same template as a document.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from meshwright.api.policy.v1 import remote_pb2 as pb
from meshwright.core import settings
from meshwright.mixer.cexl import ValueType
from meshwright.mixer.config import models
from meshwright.mixer.config.documents import Documents, shown
from meshwright.mixer.config.violation import Identity, path
from meshwright.mixer.remote import bypass, handlers
from meshwright.mixer.remote.descriptors import DescriptorError
from meshwright.mixer.remote.encoding import encode
from meshwright.mixer.remote.handlers import RemoteHandler
from meshwright.mixer.remote.templates import CHECK, CHECK_WITH_OUTPUT, REPORT, RemoteTemplate, shipped

Compile = Callable[[str, str, str, frozenset[ValueType]], ValueType | None]
"""Compiles the expression of a field: its name, its place as a path, its text, the types that fit."""


class RemoteDocuments:
    """All of one configuration. Faults are told to `found`."""

    def __init__(self, found: Documents) -> None:
        self._found = found
        self._templates: dict[Identity, RemoteTemplate] = {}
        self._adapters: dict[Identity, dict[str, int]] = {}  # the methods that each takes, with their varieties
        self._taken: dict[Identity, dict[str, int] | None] = {}  # of handlers; None: all
        self._handlers: dict[Identity, RemoteHandler] = {}
        for identity, template in sorted(found.templates.items()):
            self._read_template(identity, template)
        for identity, adapter in sorted(found.adapters.items()):
            if identity not in found.dropped:
                self._read_adapter(identity, adapter)

    def _read_template(self, identity: Identity, template: models.Template) -> None:
        try:
            self._templates[identity] = handlers.read_template(template.descriptor)
        except DescriptorError as error:
            self._found.refuse(identity, "spec.descriptor", str(error))

    def _read_adapter(self, identity: Identity, adapter: models.Adapter) -> None:
        taken: dict[str, int] = {}
        for number, reference in enumerate(adapter.templates):
            template = self._find_template(identity, path("spec", "templates", number), reference)
            if template is not None:
                taken[template.method] = template.variety
        if adapter.config:
            try:
                handlers.check_parameters(adapter.config)
            except DescriptorError as error:
                self._found.refuse(identity, "spec.config", str(error))
        self._adapters[identity] = taken

    def _find_template(self, referrer: Identity, where: str, reference: str) -> RemoteTemplate | None:
        """The document that is meant, or a template that mixer has."""
        found = self._found.find(reference, "template", referrer)
        if found in self._found.dropped:
            self._found.miss(referrer, where, found)
            return None
        if found is not None:
            return self._templates[found]
        known = shipped(reference.partition(".")[0])
        if known is None:
            self._found.unknown(referrer, where, "template", reference)
        return known

    def template(self, identity: Identity, instance: models.Instance) -> RemoteTemplate | None:
        """What the instance fills; None when there is none for adapters outside of mixer, which has been told."""
        if instance.template:
            return self._find_template(identity, "spec.template", instance.template)
        return shipped(instance.compiled_template)

    def encoding(self, identity: Identity, instance: models.Instance, compile_: Compile) -> pb.Encoding | None:
        """How adapters are asked about the instance."""
        template = self.template(identity, instance)
        if template is None:
            return None

        def evaluate(
            name: str, where: tuple[str | int, ...], source: str, types: frozenset[ValueType]
        ) -> ValueType | None:
            return compile_(name, self._found.at(identity, *where), source, types)

        def refuse(where: tuple[str | int, ...], message: str) -> None:
            self._found.refuse(identity, self._found.at(identity, *where), message)

        name = f"{shown(identity)}.instance.{identity.namespace}"
        return encode(template, name, instance.params, evaluate, refuse)

    def handler(self, identity: Identity, handler: models.Handler) -> RemoteHandler | None:
        """A handler of an adapter document, or of adapter bypass; None when it has a fault, which has been told."""
        taken: dict[str, int] | None = None
        if handler.compiled_adapter:
            parameters = self._found.parameters(identity, bypass.Bypass, handler.params)
            if parameters is None:
                return None
            connection, config = bypass.connection(parameters)
            session_based = parameters.session_based
        else:
            adapter = self._found.find(handler.adapter, "adapter", identity)
            if adapter is None:
                self._found.unknown(identity, "spec.adapter", "adapter", handler.adapter)
                return None
            if adapter in self._found.dropped:
                self._found.miss(identity, "spec.adapter", adapter)
                return None
            if handler.connection is None:
                self._found.refuse(identity, "spec.connection", "missing: say where the adapter listens (address)")
                return None
            connection, document = handler.connection, self._found.adapters[adapter]
            try:
                config = handlers.adapter_config(document.config, handler.params)
            except ValueError as error:
                self._found.refuse(identity, "spec.params", str(error))
                return None
            session_based, taken = document.session_based, self._adapters[adapter]
        if not self._is_usable(identity, connection):
            return None
        remote, token = handlers.connect(
            connection, config, session_based=session_based, max_in_flight=handler.max_in_flight
        )
        self._handlers[identity] = RemoteHandler(
            name=f"{shown(identity)}.{identity.namespace}",
            remote=remote,
            timeout_nanos=connection.timeout or handler.timeout or 0,
            decides=taken is None or any(variety in (CHECK, CHECK_WITH_OUTPUT) for variety in taken.values()),
            token=token,
        )
        self._taken[identity] = taken
        return self._handlers[identity]

    def _is_usable(self, identity: Identity, connection: models.Connection) -> bool:
        found: list[tuple[str, str]] = []
        authentication = connection.authentication
        if authentication is not None and authentication.tls is not None:
            tls = authentication.tls
            if tls.token_path == "":
                found.append(("tls.tokenPath", "empty: name a file, or leave it out"))
            if tls.oauth is not None:
                found += [(f"tls.oauth.{name}", reason) for name, reason in _faults(tls.oauth)]
            if (tls.auth_header or tls.custom_header) and tls.token_path is None and tls.oauth is None:
                found.append(("tls", "a header without a token: give tokenPath or oauth"))
        mutual = None if authentication is None else authentication.mutual
        if mutual is not None and bool(mutual.private_key) != bool(mutual.client_certificate):
            found.append(("mutual", "privateKey and clientCertificate belong together: give both, or neither"))
        for where, reason in found:
            self._found.refuse(identity, f"spec.connection.authentication.{where}", reason)
        return not found

    def is_remote(self, identity: Identity) -> bool:
        """Whether the handler's adapter is another process."""
        return identity in self._handlers

    def takes(self, handler: Identity, instance: Identity) -> bool:
        """Whether the adapter takes the instance's template."""
        template = self.template(instance, self._found.instances[instance])
        taken = self._taken[handler]
        return template is not None and (taken is None or template.method in taken)

    def fits(self, rule: Identity, where: str, handler: Identity, instance: Identity) -> bool:
        """Refuse an instance whose template the adapter doesn't take."""
        if not self.takes(handler, instance):
            given = self._found.instances[instance]
            name, adapter = given.template or given.compiled_template, self._found.handlers[handler].adapter or "bypass"
            remedy = "add it to the adapter's templates"
            self._found.refuse(
                rule, where, f"{handler} ({adapter}) doesn't take template {name} of {instance}: {remedy}"
            )
            return False
        return True

    def give(self, handler: Identity, instance: Identity, plan: pb.Encoding) -> None:
        """Note that a rule gives the instance to the handler."""
        known = self._handlers[handler]
        plans = known.plans
        template = self.template(instance, self._found.instances[instance])
        if template is not None and template.variety == REPORT:
            plans = {**plans, f"{shown(instance)}.{instance.namespace}": plan}
        self._handlers[handler] = replace(known, types={**known.types, plan.name: plan.inferred_types}, plans=plans)

    def compiled(self) -> Mapping[str, RemoteHandler]:
        """All handlers by name.namespace."""
        return {handler.name: handler for handler in self._handlers.values()}


def _faults(oauth: models.OAuth) -> list[tuple[str, str]]:
    found = [
        (name, "missing: add it")
        for name, value in (("clientId", oauth.client_id), ("clientSecret", oauth.client_secret))
        if not value
    ]
    scheme, _, rest = oauth.token_url.partition("://")
    if scheme == "http" and settings.is_local(f"{rest.partition('/')[0]}"):
        return found
    if scheme != "https" or not rest:
        found.append(("tokenUrl", "must be an https:// address: the secret is sent there"))
    return found


__all__: list[Any] = ["Compile", "RemoteDocuments"]
