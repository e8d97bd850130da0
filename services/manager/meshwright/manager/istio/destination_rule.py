"""networking.istio.io/v1 DestinationRule: how connections to a host are made, and the subsets of its workloads."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from meshwright.manager.istio.names import Exports, WildcardHost
from meshwright.manager.istio.traffic_policy import TrafficPolicy
from meshwright.manager.model.document import Document, FieldError, Labels, Strict, dns_label


def _subset(text: str) -> str:
    return text if text and len(text) <= 63 and not text.startswith("-") else dns_label(text)


class Subset(Strict):
    """The workloads with these labels, by a name that routes use."""

    name: Annotated[str, AfterValidator(_subset)]
    labels: Labels = Field(default_factory=dict)
    traffic_policy: TrafficPolicy | None = None


class WorkloadSelector(Strict):
    """The callers that a rule is for."""

    match_labels: Annotated[Labels, Field(min_length=1)]


class DestinationRuleSpec(Strict):
    """`workload_selector` limits it to these callers, `export_to` to callers of these namespaces."""

    host: WildcardHost
    traffic_policy: TrafficPolicy | None = None
    subsets: Annotated[list[Subset], Field(max_length=256)] = Field(default_factory=list)
    export_to: Exports = Field(default_factory=list)
    workload_selector: WorkloadSelector | None = None


class DestinationRule(Document):
    """How connections to a host are made."""

    spec: DestinationRuleSpec

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [subset.name for subset in self.spec.subsets]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise FieldError("spec.subsets", f"subset {twice[0]} is there twice: give each its own name")
        return self
