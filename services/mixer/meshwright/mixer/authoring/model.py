"""The kind Policy: who may call what, how often, and what is told of it, in the words that people use.

One decision to know: a policy stands on its own. Every policy that selects a request must let it pass, so adding one
never opens what another closed.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from meshwright.mixer.config.fields import ExpressionText, Model, Nanoseconds

API_VERSION = "config.meshwright.io/v1alpha1"
KIND = "Policy"

_METRIC = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def _pattern(text: str) -> str:
    if not text or "*" in text.removeprefix("*").removesuffix("*"):
        raise ValueError('a pattern is exact, or has * at its beginning or end: use `when` with text.matches(r"…")')
    return text


def _block(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise ValueError(f"{text!r} is no block of addresses: write for example 10.0.0.0/8 or fd00::7") from None


def _label(text: str) -> str:
    if not _LABEL.fullmatch(text):
        raise ValueError("use lower-case letters, digits and '-', beginning and ending with a letter or digit")
    return text


def _metric(text: str) -> str:
    if not _METRIC.fullmatch(text):
        raise ValueError("use letters, digits and '_', not beginning with a digit")
    return text


Pattern = Annotated[str, Field(max_length=1024), AfterValidator(_pattern)]
"""Exact, or with * at the beginning, the end or both: `/items/*`, `*.example.org`; * alone: anything that is there."""

Patterns = Annotated[list[Pattern], Field(min_length=1, max_length=256)]
Port = Annotated[int, Field(ge=1, le=65535)]
ShortName = Annotated[str, AfterValidator(_label)]
MetricName = Annotated[str, Field(max_length=128), AfterValidator(_metric)]
Labels = Annotated[dict[str, str], Field(min_length=1, max_length=64)]


class Target(Model):
    """What is called; all fields given must fit."""

    service: Pattern | None = None
    workload: Pattern | None = None
    namespace: Pattern | None = None
    port: Port | None = None
    network_service: Pattern | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Target:
        if not self.model_fields_set:
            raise ValueError("empty: name a service, workload, namespace, port or networkService")
        return self


class Selection(Model):
    """Which requests: all fields given must fit, of a list one entry. Nothing given: every request."""

    principals: Patterns | None = None
    namespaces: Patterns | None = None
    ip_blocks: Annotated[list[Annotated[str, AfterValidator(_block)]], Field(min_length=1, max_length=256)] | None = (
        None
    )
    labels: Labels | None = None
    methods: Patterns | None = None
    paths: Patterns | None = None
    hosts: Patterns | None = None
    ports: Annotated[list[Port], Field(min_length=1, max_length=256)] | None = None
    when: ExpressionText | None = None


class Access(Selection):
    """An entry of `allow` or `deny`; requests that `except` selects are left out."""

    exceptions: Annotated[list[Selection], Field(alias="except", max_length=64)] = Field(default_factory=list)


class Limit(Selection):
    """So many requests in every window of time, for each value of `by`; `burst` at most at once."""

    name: ShortName
    amount: Annotated[int, Field(ge=1, lt=2**53)]
    per: Nanoseconds
    by: Annotated[list[ExpressionText], Field(max_length=16)] = Field(default_factory=list)
    burst: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _has_a_window(self) -> Limit:
        if self.per < 1_000_000:
            raise ValueError("per: a window has a millisecond at least")
        if self.burst is not None and (self.burst >= self.amount or self.burst_window < 1_000_000):
            raise ValueError("burst: must be less than amount, and not less than what a millisecond allows")
        return self

    @property
    def burst_window(self) -> int:
        """In which `burst` requests are due at this rate, in nanoseconds."""
        return self.per * (self.burst or 0) // self.amount


class Log(Selection):
    """A log entry for each request, sent `to` an adapter or to a handler of one's own."""

    to: Literal["opentelemetry", "stdio"] = "opentelemetry"
    handler: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    severity: Literal["debug", "info", "warning", "error"] = "info"
    fields: Annotated[dict[str, ExpressionText], Field(max_length=128)] = Field(default_factory=dict)


class Measure(Selection):
    """A metric; `by` are its labels."""

    name: MetricName
    to: Literal["opentelemetry", "prometheus"] = "opentelemetry"
    kind: Literal["counter", "distribution"] = "counter"
    value: ExpressionText = "1"
    by: Annotated[dict[MetricName, ExpressionText], Field(max_length=32)] = Field(default_factory=dict)
    unit: Annotated[str, Field(max_length=32)] = "1"
    description: Annotated[str, Field(max_length=1024)] = ""
    bounds: Annotated[list[float], Field(max_length=256)] | None = None


Code = Literal[
    "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAUTHENTICATED",
]  # fmt: skip


class Answer(Model):
    """What a caller is told who is denied."""

    code: Code = "PERMISSION_DENIED"
    message: Annotated[str, Field(max_length=4096)] = ""


class Policy(Model):
    """The spec. `allow` present: what it doesn't select is denied; `deny` comes first in any case."""

    targets: Annotated[list[Target], Field(min_length=1, max_length=64)] | None = None
    allow: Annotated[list[Access], Field(max_length=256)] | None = None
    deny: Annotated[list[Access], Field(max_length=256)] = Field(default_factory=list)
    limits: Annotated[list[Limit], Field(max_length=64)] = Field(default_factory=list)
    log: Annotated[list[Log], Field(max_length=64)] = Field(default_factory=list)
    measure: Annotated[list[Measure], Field(max_length=64)] = Field(default_factory=list)
    answer: Answer = Field(default_factory=Answer)
    mode: Literal["enforce", "dry-run"] = "enforce"
    language: Literal["CEL"] = "CEL"

    @model_validator(mode="after")
    def _does_something(self) -> Policy:
        if self.allow is None and not (self.deny or self.limits or self.log or self.measure):
            raise ValueError("the policy does nothing: add allow, deny, limits, log or measure")
        for field in ("limits", "measure"):
            names = [each.name for each in getattr(self, field)]
            for name in {name for name in names if names.count(name) > 1}:
                raise ValueError(f"{field}: {name!r} is there twice: give each a name of its own")
        return self
