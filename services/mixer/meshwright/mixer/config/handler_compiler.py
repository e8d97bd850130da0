"""Handlers on their way into a policy: adapters with their parameters, and the instances that parameters name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pydantic

from meshwright.api.policy.v1 import policy_pb2 as pb
from meshwright.mixer.adapter.v1 import Adapter
from meshwright.mixer.config import handlers, models
from meshwright.mixer.config.adapters import NATIVE, ListChecker, MemQuota
from meshwright.mixer.config.compiled import Lists, Sink
from meshwright.mixer.config.completing import Completing
from meshwright.mixer.config.documents import Documents, is_legacy, shown
from meshwright.mixer.config.instance_compiler import InstanceCompiler
from meshwright.mixer.config.kinds import VENDORS
from meshwright.mixer.config.places import Places
from meshwright.mixer.config.prometheus import Prometheus
from meshwright.mixer.config.violation import Identity
from meshwright.mixer.remote import bypass
from meshwright.mixer.remote.documents import RemoteDocuments


class HandlerCompiler:
    """`numbers` are the policy's handlers by document, `used` the instances that their parameters name."""

    def __init__(
        self,
        found: Documents,
        adapters: Mapping[str, Adapter],
        policy: pb.Policy,
        instances: InstanceCompiler,
        places: Places,
        remotes: RemoteDocuments,
        lists: Lists,
    ) -> None:
        self._found, self._adapters, self._policy, self._instances = found, adapters, policy, instances
        self._places, self._remotes, self._lists = places, remotes, lists
        self._parameters: dict[Identity, pydantic.BaseModel] = {}
        self.numbers: dict[Identity, int] = {}
        self.providers: dict[str, ListChecker] = {}
        self.used: set[Identity] = set()

    def message(self, identity: Identity) -> pb.Handler:
        """The handler as it is in the policy."""
        return self._policy.handlers[self.numbers[identity]]

    def sinks(self) -> dict[str, Sink]:
        """Those whose adapters are Python, by `name.namespace`."""
        return {
            f"{shown(identity)}.{identity.namespace}": Sink(
                self._found.handlers[identity].compiled_adapter,
                self._parameters[identity],
                self._found.handlers[identity].max_in_flight,
            )
            for identity in self.numbers
            if identity in self._parameters
        }

    def add(self, identity: Identity, handler: models.Handler) -> None:
        """Put the handler into the policy, or refuse it; its instances are there already."""
        name = handler.compiled_adapter
        compiled = pb.Handler()
        if handler.adapter or name == bypass.NAME:
            remote = self._remotes.handler(identity, handler)
            if remote is None:
                return
            compiled = handlers.remote(identity, handler, remote)
        elif name in NATIVE:
            native = self._found.parameters(identity, NATIVE[name][0], handler.params)
            if native is None:
                return
            name = f"{shown(identity)}.{identity.namespace}"
            provided: Sequence[str] | None = ()
            if isinstance(native, ListChecker) and native.provider_url is not None:
                self.providers[name] = native
                provided = self._lists.get(name)
            compiled = handlers.native(identity, native, provided)
            if isinstance(native, MemQuota):
                self._limits(identity, native, compiled.quotas)
            elif isinstance(native, Prometheus):
                self._metrics(identity, native, compiled.report.prometheus)
        elif name in self._adapters:
            parameters = self._found.parameters(identity, self._adapters[name].parameters, handler.params)
            if parameters is None:
                return
            self._parameters[identity] = self._completed(self._adapters[name], parameters)
            compiled = handlers.python(identity, handler, self._adapters[name])
        else:
            known = ", ".join(sorted([*NATIVE, *self._adapters]))
            others = ", whose work opentelemetry and a collector do" if name in VENDORS else ""
            message = f"unknown adapter {name!r}{others}: use one of {known}, or install the package that brings it"
            self._found.refuse(identity, "kind" if is_legacy(identity) else "spec.compiledAdapter", message)
        if identity in self._found.dropped:
            return
        self._policy.handlers.append(compiled)
        self.numbers[identity] = self._places.add("handlers", identity)

    def _completed(self, adapter: Adapter, parameters: pydantic.BaseModel) -> pydantic.BaseModel:
        """The parameters with the documents that the adapter depends on, which are in use then."""
        if not isinstance(adapter, Completing):
            return parameters
        documents = {
            kind: {(identity.namespace, identity.name): model for identity, model in models.items()}
            for kind, models in self._found.models.items()
        }
        return adapter.complete(parameters, documents)

    def _limits(self, identity: Identity, parameters: MemQuota, compiled: pb.Handler.Quotas) -> None:
        seen: set[Identity] = set()
        for number, quota in enumerate(parameters.quotas):
            where = self._found.at(identity, "quotas", number, "name")
            target = self._instances.find(quota.name, identity, where)
            if target is None or target not in self._instances.numbers:
                continue  # unknown, which was told; or left out, and then nobody can charge it
            instance = self._instances.message(target)
            if instance.variety != pb.QUOTA:
                self._found.refuse(identity, where, f"{target} is not a quota: name an instance of template quota")
                continue
            if target in seen:
                self._found.refuse(identity, where, f"{target} is limited twice: keep one entry")
                continue
            seen.add(target)
            self.used.add(target)
            dimensions = {each.name.removeprefix("dimensions.") for each in instance.fields}
            for place, override in enumerate(quota.overrides):
                for unknown in sorted(set(override.dimensions) - dimensions):
                    field_path = self._found.at(identity, "quotas", number, "overrides", place, "dimensions", unknown)
                    self._found.refuse(identity, field_path, f"{target} has no such dimension: use one of its own")
            compiled.limits.append(handlers.limit(quota, self._instances.numbers[target]))

    def _metrics(self, identity: Identity, parameters: Prometheus, compiled: pb.Handler.Prometheus) -> None:
        """Metrics with their instances, which have the dimensions that labels show."""
        names: set[str] = set()
        for number, metric in enumerate(parameters.metrics):
            where = self._found.at(identity, "metrics", number, "instanceName")
            target = self._instances.find(metric.instance_name, identity, where)
            if target is None or target not in self._instances.numbers:
                continue  # unknown, which was told; or left out, and then nothing comes of it
            instance = self._instances.message(target)
            if instance.template != "metric":
                self._found.refuse(identity, where, f"{target} is no metric: name an instance of template metric")
                continue
            self.used.add(target)
            dimensions = {field.name.removeprefix("dimensions.") for field in instance.fields}
            for unknown in sorted(set(metric.label_names) - dimensions):
                labels = self._found.at(identity, "metrics", number, "labelNames")
                message = f"{target} has no dimension {unknown!r}: use one of its own, or add it there"
                self._found.refuse(identity, labels, message)
            name = metric.full_name(shown(target))
            if name in names:
                message = f"{name} is there already: give each metric a name of its own"
                self._found.refuse(identity, self._found.at(identity, "metrics", number, "name"), message)
            names.add(name)
            compiled.metrics.append(metric.compiled(name, self._instances.numbers[target]))
