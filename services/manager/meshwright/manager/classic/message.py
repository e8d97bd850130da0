"""What Istio classic's kinds are made of: messages whose fields may be written in both of protobuf's spellings."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator
from pydantic.alias_generators import to_camel

from meshwright.manager.model.document import Labels, Name, Strict, dns_label
from meshwright.manager.model.domain import DOMAIN
from meshwright.manager.model.matching import Match

MAX_RULES = 64
MAX_HOST = 253


class Message(Strict):
    """A message of Istio classic: `http_req_timeout` (release 0.1) and `httpReqTimeout` (0.2 on) are one field."""

    @model_validator(mode="before")
    @classmethod
    def _spelling(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        known = {name: to_camel(name) for name in cls.model_fields}
        twice = [name for name, camel in known.items() if name != camel and name in data and camel in data]
        if twice:
            raise ValueError(f"has both {twice[0]} and {known[twice[0]]}, which are one field: write it once")
        return {known.get(name, name) if isinstance(name, str) else name: value for name, value in data.items()}


def dns_name(text: str) -> str:
    """Accept a DNS name without wildcards."""
    if len(text) > MAX_HOST:
        raise ValueError(f"the name has {len(text)} characters: DNS takes {MAX_HOST} at most")
    for part in text.split("."):
        dns_label(part)
    return text


DnsName = Annotated[str, AfterValidator(dns_name)]


class IstioService(Message):
    """A service, and with `labels` some of its workloads. `service` is a whole DNS name instead of the first three."""

    name: Name | None = None
    namespace: Name | None = None
    domain: DnsName | None = None
    service: DnsName | None = None
    labels: Labels = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_name(self) -> IstioService:
        if self.service is None and self.name is None:
            raise ValueError("names no service: write name, or service for a whole DNS name")
        if self.service is not None and (self.name or self.namespace or self.domain):
            raise ValueError("has service beside name, namespace or domain: service says all of it, remove the others")
        return self

    def host(self, namespace: str) -> str:
        """Return the whole DNS name, for an object of `namespace`."""
        if self.service is not None:
            return self.service if "." in self.service else f"{self.service}.{namespace}.{DOMAIN}"
        return f"{self.name}.{self.namespace or namespace}.{self.domain or DOMAIN}"

    @property
    def sorted_labels(self) -> tuple[tuple[str, str], ...]:
        """Return the labels in their canonical order."""
        return tuple(sorted(self.labels.items()))


class Caller(IstioService):
    """The workloads that a rule is for, by service, namespace and labels: any of them, all that are given must fit."""

    @model_validator(mode="after")
    def _one_name(self) -> Caller:
        if self.service is not None and (self.name or self.namespace or self.domain):
            raise ValueError("has service beside name, namespace or domain: service says all of it, remove the others")
        if not (self.service or self.name or self.namespace or self.labels):
            raise ValueError("names nobody: write name, service, namespace or labels, or leave it out for all callers")
        return self


HttpHeaders = Annotated[dict[str, Match], Field(max_length=64)]
