"""Parameters of a handler of adapter `opentelemetry`."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.alias_generators import to_camel

DEFAULT_BOUNDS = (0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0)
"""Upper bounds of the buckets of a duration in milliseconds, from a local call to a time-out."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, alias_generator=to_camel, populate_by_name=True)


class MetricDefinition(_Model):
    """How an instance of template metric is exported; a DURATION is exported in `unit` (ms, s or us)."""

    instance: Annotated[str, Field(min_length=1, description="The instance, as `name` or `name.namespace`.")]
    name: Annotated[str, Field(min_length=1, max_length=255, description="The metric's name.")]
    kind: Literal["COUNTER", "DISTRIBUTION"] = "COUNTER"
    unit: Annotated[str, Field(max_length=63)] = "1"
    description: Annotated[str, Field(max_length=1024)] = ""
    bounds: Annotated[list[float], Field(max_length=128)] = Field(default_factory=lambda: [*DEFAULT_BOUNDS])

    @field_validator("bounds")
    @classmethod
    def _ascending(cls, bounds: list[float]) -> list[float]:
        if any(low >= high for low, high in pairwise(bounds)):
            raise ValueError("bounds must ascend: order them, each once")
        return bounds


class Parameters(_Model):
    """Where to export to, and what the metrics are called."""

    endpoint: Annotated[
        str | None, Field(description="OTLP gRPC collector as host:port; missing: mixer's own --otlp.")
    ] = None
    peer: Annotated[str | None, Field(description="The collector's SPIFFE ID; missing: the mesh's own collector.")] = (
        None
    )
    timeout_seconds: Annotated[
        float, Field(gt=0, le=2.5, description="Deadline of one export, of which a batch has three at most.")
    ] = 2.0
    metrics: Annotated[list[MetricDefinition], Field(max_length=1000)] = Field(default_factory=list)
