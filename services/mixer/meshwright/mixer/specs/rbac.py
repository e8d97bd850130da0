"""The classic RBAC kinds (rbac.istio.io/v1alpha1): who has which role, and where roles count."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from meshwright.mixer.config.fields import Model

Texts = Annotated[list[Annotated[str, Field(max_length=2048)]], Field(max_length=1000)]
Ports = Annotated[list[Annotated[int, Field(ge=1, le=65535)]], Field(max_length=1000)]


def _none() -> list[str]:
    return []


class Constraint(Model):
    """A property of the request (`destination.labels[version]`, `request.headers[x-token]`) and its allowed values."""

    key: Annotated[str, Field(min_length=1, max_length=256)]
    values: Annotated[Texts, Field(min_length=1)]


class AccessRule(Model):
    """What a role allows. Texts may begin or end with `*`; a list that isn't given sets no limit."""

    services: Texts = Field(default_factory=_none)
    hosts: Texts = Field(default_factory=_none)
    not_hosts: Texts = Field(default_factory=_none)
    paths: Texts = Field(default_factory=_none)
    not_paths: Texts = Field(default_factory=_none)
    methods: Texts = Field(default_factory=_none)
    not_methods: Texts = Field(default_factory=_none)
    ports: Ports = Field(default_factory=list)
    not_ports: Ports = Field(default_factory=list)
    constraints: Annotated[list[Constraint], Field(max_length=64)] = Field(default_factory=list)


class ServiceRole(Model):
    """A role: one of its rules must allow the request."""

    rules: Annotated[list[AccessRule], Field(min_length=1, max_length=1000)]


class Subject(Model):
    """Whom a binding means: all that is given must hold."""

    user: str = ""
    names: Texts = Field(default_factory=_none)
    not_names: Texts = Field(default_factory=_none)
    group: str = ""
    groups: Texts = Field(default_factory=_none)
    not_groups: Texts = Field(default_factory=_none)
    namespaces: Texts = Field(default_factory=_none)
    not_namespaces: Texts = Field(default_factory=_none)
    ips: Texts = Field(default_factory=_none)
    not_ips: Texts = Field(default_factory=_none)
    properties: Annotated[dict[str, str], Field(max_length=64)] = Field(default_factory=dict)


class RoleRef(Model):
    """The role, of the binding's own namespace."""

    kind: Literal["ServiceRole"] = "ServiceRole"
    name: Annotated[str, Field(min_length=1, max_length=253)]


class ServiceRoleBinding(Model):
    """Gives a role to subjects; PERMISSIVE is decided and told, not enforced."""

    subjects: Annotated[list[Subject], Field(min_length=1, max_length=1000)]
    role_ref: RoleRef
    mode: Literal["ENFORCED", "PERMISSIVE"] = "ENFORCED"


class Target(Model):
    """Services by their whole names, and namespaces."""

    services: Texts = Field(default_factory=_none)
    namespaces: Texts = Field(default_factory=_none)


class RbacConfig(Model):
    """Where roles count: everywhere, nowhere, or with what is included or excluded."""

    mode: Literal["OFF", "ON", "ON_WITH_INCLUSION", "ON_WITH_EXCLUSION"] = "OFF"
    inclusion: Target = Field(default_factory=Target)
    exclusion: Target = Field(default_factory=Target)
    enforcement_mode: Literal["ENFORCED", "PERMISSIVE"] = "ENFORCED"
