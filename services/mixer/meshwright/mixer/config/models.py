"""The documents of config.istio.io/v1alpha2 that mixer owns: rule, handler and instance (their `spec`)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from meshwright.mixer.config.fields import ExpressionText, Model

Reference = Annotated[str, Field(min_length=1, max_length=512)]
"""`name`, `name.namespace` or `name.kind.namespace`."""


class Action(Model):
    """What a matching rule does: gives instances to a handler."""

    handler: Reference
    instances: Annotated[list[Reference], Field(min_length=1, max_length=64)]
    name: str = ""


class HeaderOperation(Model):
    """A change of the request's or the response's headers; `values` are expressions of type STRING."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    values: Annotated[list[ExpressionText], Field(max_length=64)] = Field(default_factory=list)
    operation: Literal["REPLACE", "REMOVE", "APPEND"] = "REPLACE"


class Rule(Model):
    """When `match` is true (or missing), do all actions and header operations."""

    match: ExpressionText | None = None
    actions: Annotated[list[Action], Field(max_length=64)] = Field(default_factory=list)
    request_header_operations: Annotated[list[HeaderOperation], Field(max_length=64)] = Field(default_factory=list)
    response_header_operations: Annotated[list[HeaderOperation], Field(max_length=64)] = Field(default_factory=list)


class Handler(Model):
    """An adapter with its parameters, which the adapter's own model checks."""

    compiled_adapter: Annotated[str, Field(min_length=1, max_length=128)]
    params: dict[str, Any] = Field(default_factory=dict)


class Instance(Model):
    """A template filled with expressions, which the template's own model checks."""

    compiled_template: Annotated[str, Field(min_length=1, max_length=128)]
    params: dict[str, Any] = Field(default_factory=dict)
