"""security.istio.io/v1 AuthorizationPolicy: who may call a workload, and what.

CUSTOM asks first, then DENY, then ALLOW; with no ALLOW policy everything passes, with one only what some allows. A
policy without rules fits nothing, so that one that allows lets nobody in; one empty rule fits everything.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from meshwright.manager.istio.selector import Selecting
from meshwright.manager.model.document import Document, FieldError, Strict
from meshwright.manager.model.subnet import Subnet

Text = Annotated[str, Field(min_length=1, max_length=1024)]
Texts = Annotated[list[Text], Field(max_length=1000)]
Subnets = Annotated[list[Subnet], Field(max_length=1000)]

_KEY = re.compile(
    r"request\.headers\[[-!#$%&'*+.^_`|~0-9A-Za-z:]+\]|request\.auth\.(principal|audiences|presenter)"
    r"|request\.auth\.claims(\[[^\[\]]+\])+|(source|remote)\.ip|source\.(namespace|principal|serviceAccount)"
    r"|destination\.(ip|port)|connection\.sni"
)
_OF_FILTERS = "experimental.envoy.filters."


def _pattern(text: str) -> str:
    """Accept ``text``, ``*``, ``prefix*`` and ``*suffix``."""
    if "*" in text.strip("*") or text in ("**",) or (text.startswith("*") and text.endswith("*") and text != "*"):
        raise ValueError(f"{text!r} has a '*' in the middle: one stands at the beginning or the end only")
    return text


def _path(text: str) -> str:
    if "{" in text or "}" in text:
        parts = text.split("/")
        for part in parts:
            if ("{" in part or "}" in part) and part not in ("{*}", "{**}"):
                raise ValueError(f"{text!r} has {part!r}: in a template a part is {{*}} or {{**}} as a whole")
        if parts.count("{**}") > 1 or "*" in text.replace("{*}", "").replace("{**}", ""):
            raise ValueError(f"{text!r} isn't a template: write {{*}} for one part, and {{**}} once at most for any")
        return text
    return _pattern(text)


def _port(text: str) -> str:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise ValueError(f"{text!r} isn't a port: write a number from 1 to 65535, in quotes")
    return text


def _account(text: str) -> str:
    if not re.fullmatch(r"([a-z0-9]([-a-z0-9]*[a-z0-9])?/)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?", text):
        raise ValueError(f"{text!r} isn't a service account: write NAME or NAMESPACE/NAME")
    return text


Pattern = Annotated[Text, AfterValidator(_pattern)]
Patterns = Annotated[list[Pattern], Field(max_length=1000)]
Paths = Annotated[list[Annotated[Text, AfterValidator(_path)]], Field(max_length=1000)]
Ports = Annotated[list[Annotated[str, AfterValidator(_port)]], Field(max_length=64)]
Accounts = Annotated[list[Annotated[str, AfterValidator(_account)]], Field(max_length=16)]


class Source(Strict):
    """Where a call is from: all lists that are given must fit, any entry of one; `not_…` must not."""

    principals: Patterns = Field(default_factory=list)
    not_principals: Patterns = Field(default_factory=list)
    request_principals: Patterns = Field(default_factory=list)
    not_request_principals: Patterns = Field(default_factory=list)
    namespaces: Patterns = Field(default_factory=list)
    not_namespaces: Patterns = Field(default_factory=list)
    service_accounts: Accounts = Field(default_factory=list)
    not_service_accounts: Accounts = Field(default_factory=list)
    ip_blocks: Subnets = Field(default_factory=list)
    not_ip_blocks: Subnets = Field(default_factory=list)
    remote_ip_blocks: Subnets = Field(default_factory=list)
    not_remote_ip_blocks: Subnets = Field(default_factory=list)
    trust_domains: Patterns = Field(default_factory=list)
    not_trust_domains: Patterns = Field(default_factory=list)

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not any(getattr(self, name) for name in type(self).model_fields):
            raise ValueError("says nothing of the caller: write principals, namespaces or such, or leave from out")
        if (self.service_accounts or self.not_service_accounts) and (self.principals or self.namespaces):
            raise ValueError("has serviceAccounts beside principals or namespaces: an account says both, remove them")
        return self


class From(Strict):
    """One source."""

    source: Source


class Operation(Strict):
    """What is called: all lists that are given must fit, any entry of one; `not_…` must not."""

    hosts: Patterns = Field(default_factory=list)
    not_hosts: Patterns = Field(default_factory=list)
    ports: Ports = Field(default_factory=list)
    not_ports: Ports = Field(default_factory=list)
    methods: Patterns = Field(default_factory=list)
    not_methods: Patterns = Field(default_factory=list)
    paths: Paths = Field(default_factory=list)
    not_paths: Paths = Field(default_factory=list)

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not any(getattr(self, name) for name in type(self).model_fields):
            raise ValueError("says nothing of the call: write hosts, ports, methods or paths, or leave to out")
        return self


class To(Strict):
    """One operation."""

    operation: Operation


class Condition(Strict):
    """An attribute, and what it must or mustn't be."""

    key: Text
    values: Patterns = Field(default_factory=list)
    not_values: Patterns = Field(default_factory=list)

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.key.startswith(_OF_FILTERS):
            raise ValueError(f"{self.key} is what a filter says that this mesh doesn't load: remove the condition")
        if not _KEY.fullmatch(self.key):
            raise ValueError(
                f"{self.key!r} isn't an attribute: there are request.headers[…], source.ip, remote.ip, "
                "source.namespace, source.principal, source.serviceAccount, request.auth.principal, "
                "request.auth.audiences, request.auth.presenter, request.auth.claims[…], destination.ip, "
                "destination.port and connection.sni"
            )
        if not self.values and not self.not_values:
            raise ValueError("compares with nothing: write values or notValues")
        return self


class Rule(Strict):
    """Fits when any of `from` does, any of `to`, and all of `when`."""

    from_: Annotated[list[From], Field(max_length=512, alias="from")] = Field(default_factory=list)
    to: Annotated[list[To], Field(max_length=512)] = Field(default_factory=list)
    when: Annotated[list[Condition], Field(max_length=64)] = Field(default_factory=list)


class Provider(Strict):
    """Who decides, for action CUSTOM."""

    name: Text


class AuthorizationPolicySpec(Selecting):
    """What an action is for."""

    action: Literal["ALLOW", "DENY", "AUDIT", "CUSTOM"] = "ALLOW"
    provider: Provider | None = None
    rules: Annotated[list[Rule], Field(max_length=512)] = Field(default_factory=list)


class AuthorizationPolicy(Document):
    """Who may call a workload, and what."""

    spec: AuthorizationPolicySpec = AuthorizationPolicySpec()

    @model_validator(mode="after")
    def _sense(self) -> Self:
        spec = self.spec
        if spec.action == "CUSTOM" and spec.provider is None:
            raise FieldError("spec.provider", "action CUSTOM asks somebody: write provider.name")
        if spec.action != "CUSTOM" and spec.provider is not None:
            raise FieldError("spec.provider", f"action {spec.action} asks nobody: remove it, or write CUSTOM")
        if spec.action != "ALLOW" and not spec.rules:
            raise FieldError(
                "spec.rules", f"action {spec.action} without rules is for no call: write [{{}}] for every one"
            )
        return self
