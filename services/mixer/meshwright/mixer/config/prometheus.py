"""Parameters of the prometheus adapter, as in the original: which metric shows which instance, with which labels.

The adapter runs in Rust behind the queue of records; buckets are reckoned here, as their upper bounds.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from meshwright.api.policy.v1 import policy_pb2 as pb
from meshwright.mixer.config.fields import Model, Nanoseconds
from meshwright.mixer.config.models import Reference

MAX_BUCKETS = 200
_DEFAULT_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_KINDS = {
    "COUNTER": pb.Handler.Prometheus.COUNTER,
    "GAUGE": pb.Handler.Prometheus.GAUGE,
    "DISTRIBUTION": pb.Handler.Prometheus.DISTRIBUTION,
}

Number = Annotated[float, Field(strict=False, allow_inf_nan=False)]
"""YAML writes 1 for 1.0."""
Buckets = Annotated[int, Field(ge=1, le=MAX_BUCKETS)]


class Linear(Model):
    """Buckets of the same width, from `offset` on."""

    num_finite_buckets: Buckets
    width: Annotated[Number, Field(gt=0)]
    offset: Number = 0.0


class Exponential(Model):
    """Buckets that grow, from `scale` on."""

    num_finite_buckets: Buckets
    growth_factor: Annotated[Number, Field(gt=1)]
    scale: Annotated[Number, Field(gt=0)]


class Explicit(Model):
    """Buckets by their upper bounds."""

    bounds: Annotated[list[Number], Field(min_length=1, max_length=MAX_BUCKETS)]

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if any(low >= high for low, high in zip(self.bounds, self.bounds[1:], strict=False)):
            raise ValueError("bounds must rise")
        return self


class BucketsDefinition(Model):
    """One of three ways to say where buckets end."""

    linear_buckets: Linear | None = None
    exponential_buckets: Exponential | None = None
    explicit_buckets: Explicit | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (
            sum(each is not None for each in (self.linear_buckets, self.exponential_buckets, self.explicit_buckets))
            != 1
        ):
            raise ValueError("give one of linearBuckets, exponentialBuckets and explicitBuckets")
        return self

    def bounds(self) -> list[float]:
        """Upper bounds of the finite buckets and of the one below them."""
        if linear := self.linear_buckets:
            return [linear.offset + number * linear.width for number in range(linear.num_finite_buckets + 1)]
        if grown := self.exponential_buckets:
            return [grown.scale * grown.growth_factor**number for number in range(grown.num_finite_buckets + 1)]
        assert self.explicit_buckets is not None
        return self.explicit_buckets.bounds


class MetricInfo(Model):
    """One metric. Its name is NAMESPACE_NAME; without a name the instance's."""

    namespace: Annotated[str, Field(max_length=100)] = "istio"
    name: Annotated[str, Field(max_length=200)] = ""
    instance_name: Reference
    description: Annotated[str, Field(max_length=1000)] = ""
    kind: Literal["COUNTER", "GAUGE", "DISTRIBUTION"]
    buckets: BucketsDefinition | None = None
    label_names: Annotated[list[str], Field(max_length=64)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _has_buckets_for_a_distribution(self) -> Self:
        if self.buckets is not None and self.kind != "DISTRIBUTION":
            raise ValueError("only a DISTRIBUTION has buckets: remove them, or change the kind")
        if len(set(map(safe, self.label_names))) != len(self.label_names):
            raise ValueError("two labels would have the same name in Prometheus, which has letters, digits and _ only")
        return self

    def full_name(self, instance: str) -> str:
        """The name that Prometheus sees."""
        name = safe(self.name or instance)
        return f"{safe(self.namespace)}_{name}" if self.namespace else name

    def compiled(self, name: str, instance: int) -> pb.Handler.Prometheus.Metric:
        """The metric of this name for the engine's instance."""
        metric = pb.Handler.Prometheus.Metric(
            instance=instance, name=name, help=self.description or name, kind=_KINDS[self.kind]
        )
        if self.kind == "DISTRIBUTION":
            metric.bounds.extend(self.buckets.bounds() if self.buckets else _DEFAULT_BOUNDS)
        for label in self.label_names:
            metric.labels.add(name=safe(label), dimension=label)
        return metric


class Expiration(Model):
    """Series that nothing was added to for `metricsExpiryDuration` are forgotten."""

    metrics_expiry_duration: Nanoseconds = 0
    expiry_check_interval_duration: Nanoseconds | None = None


class Prometheus(Model):
    """Metrics for Prometheus, which reads them at mixer's /metrics; `maxSeries` bounds them all together."""

    metrics: Annotated[list[MetricInfo], Field(max_length=1000)] = Field(default_factory=list)
    metrics_expiration_policy: Expiration = Field(default_factory=Expiration)
    max_series: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000

    def compiled(self) -> pb.Handler.Prometheus:
        """Everything but the metrics, for which the compiler knows the instances."""
        expiry = self.metrics_expiration_policy
        check = expiry.expiry_check_interval_duration
        return pb.Handler.Prometheus(
            expiry_nanos=expiry.metrics_expiry_duration,
            expiry_check_nanos=expiry.metrics_expiry_duration // 2 if check is None else check,
            max_series=self.max_series,
        )


def safe(name: str) -> str:
    """A name with other characters than Prometheus allows replaced."""
    replaced = re.sub(r"[^a-zA-Z0-9_]", "_", name)
    return f"_{replaced}" if replaced[:1].isdigit() else replaced
