"""split.smi-spec.io TrafficSplit: shares of a service's requests, or of those that match, for other services.

A backend gets weight ÷ sum of weights (SMI §TrafficSplit); weight 0 gets nothing. A split isn't hierarchical: a backend
is reached itself, even when another split has it as its root. v1alpha4 is the form that is kept.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PlainValidator, model_validator

from meshwright.core import errors
from meshwright.manager.model.document import Document, FieldError, Name, Strict, dns_label
from meshwright.manager.smi import quantity


def service_name(text: str) -> str:
    """Accept `catalog` or a longer name of the same service; the namespace is compared in `TrafficSplit`."""
    dns_label(text.split(".", 1)[0])
    for part in text.split(".")[1:]:
        dns_label(part)
    return text


def _quantity(value: Any) -> Any:
    try:
        quantity.amount(value)
    except errors.ConfigError as error:
        raise ValueError(str(error)) from None
    return value


class Backend(Strict):
    """One service that gets a share."""

    service: Name
    weight: Annotated[int, Field(ge=0, le=quantity.MAX_WEIGHT)]


class QuantityBackend(Strict):
    """v1alpha1: the weight is a quantity."""

    service: Name
    weight: Annotated[Any, PlainValidator(_quantity)]


class RouteGroup(Strict):
    """An HTTPRouteGroup of the split's namespace."""

    api_group: Literal["", "specs.smi-spec.io"] | None = None
    kind: Literal["HTTPRouteGroup"]
    name: Name


def _backends(backends: list[Any]) -> list[Any]:
    names = [backend.service for backend in backends]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"service {min(twice)!r} is named twice: give it one weight")
    if not any(quantity.amount(backend.weight) for backend in backends):
        raise ValueError("all weights are 0, so that no request could go anywhere: give at least one backend a weight")
    return backends


Some = Field(min_length=1, max_length=64)


class OldSplitSpec(Strict):
    """v1alpha2: for all requests."""

    service: Annotated[str, AfterValidator(service_name)]
    backends: Annotated[list[Backend], Some, AfterValidator(_backends)]


class TrafficSplitSpec(OldSplitSpec):
    """The service that callers name, and who answers for it; with `matches`, for requests that any group matches."""

    matches: Annotated[list[RouteGroup], Field(max_length=64)] = Field(default_factory=list)


class FirstSplitSpec(Strict):
    """v1alpha1."""

    service: Annotated[str, AfterValidator(service_name)]
    backends: Annotated[list[QuantityBackend], Some, AfterValidator(_backends)]


class TrafficSplitV1(Document):
    """v1alpha1: weights are quantities."""

    spec: FirstSplitSpec


class TrafficSplitV2(Document):
    """v1alpha2: without matches."""

    spec: OldSplitSpec


class TrafficSplit(Document):
    """Shares of one service's requests."""

    spec: TrafficSplitSpec

    @property
    def root(self) -> str:
        """The name of the service whose requests are split."""
        return self.spec.service.split(".", 1)[0]

    @property
    def groups(self) -> frozenset[str]:
        """The names of the HTTPRouteGroups whose requests are split; none: all requests are."""
        return frozenset(group.name for group in self.spec.matches)

    @model_validator(mode="after")
    def _references(self) -> Self:
        namespace = self.metadata.namespace or "default"
        whole = f"{self.root}.{namespace}.svc.cluster.local"
        if not f"{whole}.".startswith(f"{self.spec.service}."):
            raise FieldError(
                "spec.service",
                f"{self.spec.service!r} isn't a service of namespace {namespace}: "
                f"write {self.root!r} or {whole!r}, and put the split where its service is",
            )
        for number, backend in enumerate(self.spec.backends):
            if backend.service == self.root:
                raise FieldError(
                    f"spec.backends[{number}].service",
                    f"the split refers to itself: {self.root!r} is the service that is split; name the services "
                    "behind it, each with a selector of its own",
                )
        return self
