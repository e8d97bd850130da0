"""split.smi-spec.io/v1alpha4 TrafficSplit: shares of a service's requests for other services.

A backend gets weight ÷ sum of weights (SMI §TrafficSplit); weight 0 gets nothing. A split isn't hierarchical: a backend
is reached itself, even when another split has it as its root.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from meshwright.manager.model.document import Document, FieldError, Name, Strict, dns_label

MAX_WEIGHT = 1_000_000  # 64 backends of it still fit the proxy's 32-bit sum


def _service_name(text: str) -> str:
    """Accept `catalog` or a longer name of the same service; the namespace is compared in `TrafficSplit`."""
    dns_label(text.split(".", 1)[0])
    for part in text.split(".")[1:]:
        dns_label(part)
    return text


class Backend(Strict):
    """One service that gets a share."""

    service: Name
    weight: Annotated[int, Field(ge=0, le=MAX_WEIGHT)]


def _backends(backends: list[Backend]) -> list[Backend]:
    names = [backend.service for backend in backends]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"service {min(twice)!r} is named twice: give it one weight")
    if not any(backend.weight for backend in backends):
        raise ValueError("all weights are 0, so that no request could go anywhere: give at least one backend a weight")
    return backends


class TrafficSplitSpec(Strict):
    """The service that callers name, and who answers for it."""

    service: Annotated[str, AfterValidator(_service_name)]
    backends: Annotated[list[Backend], Field(min_length=1, max_length=64), AfterValidator(_backends)]


class TrafficSplit(Document):
    """Shares of one service's requests."""

    spec: TrafficSplitSpec

    @property
    def root(self) -> str:
        """The name of the service whose requests are split."""
        return self.spec.service.split(".", 1)[0]

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
