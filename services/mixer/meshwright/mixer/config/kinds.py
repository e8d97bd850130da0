"""The kinds of documents that mixer owns: what each means and which model reads its `spec`.

One decision to know: a legacy kind (one a built-in adapter or template, such as `denier` or `listentry`) is read as the
handler or instance that it stands for, with the whole `spec` as its parameters; from there on nothing tells them apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from meshwright.mixer.authoring import model as authoring
from meshwright.mixer.config import models
from meshwright.mixer.config.fields import Model
from meshwright.mixer.config.violation import API_VERSION, RBAC_API_VERSION
from meshwright.mixer.specs import api_spec, quota_spec, rbac
from meshwright.mixer.templates import TEMPLATES

HANDLER, INSTANCE = "handler", "instance"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind. `means` is empty, or the kind (handler, instance) that a legacy kind stands for."""

    api_version: str
    name: str
    model: type[Model]
    means: str = ""


LEGACY_ADAPTERS = (
    "bypass",
    "circonus",
    "cloudwatch",
    "denier",
    "dogstatsd",
    "fluentd",
    "kubernetesenv",
    "listchecker",
    "memquota",
    "noop",
    "opa",
    "prometheus",
    "rbac",
    "redisquota",
    "solarwinds",
    "stackdriver",
    "statsd",
    "stdio",
    "zipkin",
)

VENDORS = frozenset({"circonus", "cloudwatch", "solarwinds", "stackdriver"})
"""Adapters of the original for single vendors' clouds, which mixer hasn't."""

LEGACY_TEMPLATES = tuple(sorted(set(TEMPLATES) - {"otlp"}))  # which is ours, and younger than kinds of their own

_CONFIG: Mapping[str, type[Model]] = {
    "rule": models.Rule,
    HANDLER: models.Handler,
    INSTANCE: models.Instance,
    "attributemanifest": models.AttributeManifest,
    "template": models.Template,
    "adapter": models.Adapter,
    "QuotaSpec": quota_spec.QuotaSpec,
    "QuotaSpecBinding": quota_spec.QuotaSpecBinding,
    "HTTPAPISpec": api_spec.HttpApiSpec,
    "HTTPAPISpecBinding": api_spec.HttpApiSpecBinding,
}
_RBAC: Mapping[str, type[Model]] = {
    "ServiceRole": rbac.ServiceRole,
    "ServiceRoleBinding": rbac.ServiceRoleBinding,
    "RbacConfig": rbac.RbacConfig,
    "ClusterRbacConfig": rbac.RbacConfig,
}

KINDS: Mapping[tuple[str, str], Kind] = MappingProxyType(
    {
        (kind.api_version, kind.name): kind
        for kind in (
            *(Kind(API_VERSION, name, model) for name, model in _CONFIG.items()),
            *(Kind(RBAC_API_VERSION, name, model) for name, model in _RBAC.items()),
            Kind(authoring.API_VERSION, authoring.KIND, authoring.Policy),
            *(Kind(API_VERSION, name, models.Handler, HANDLER) for name in LEGACY_ADAPTERS),
            *(Kind(API_VERSION, name, models.Instance, INSTANCE) for name in LEGACY_TEMPLATES),
        )
    }
)
"""By apiVersion and kind."""

MEANINGS: Mapping[str, str] = MappingProxyType(
    {kind.name: kind.means for kind in KINDS.values() if kind.means} | {HANDLER: HANDLER, INSTANCE: INSTANCE}
)
"""Kinds of handlers and instances, legacy ones too → handler or instance."""
API_VERSIONS = frozenset(api_version for api_version, _ in KINDS)
