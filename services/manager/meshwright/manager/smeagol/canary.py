"""smi.meshwright.io/v1beta1 Canary: shares of requests, in both forms that the draft had.

The first gives percentages to services, and the Canary itself is the service that is called; the second is what became
TrafficSplit: a root service and backends whose weights are quantities. Percentages needn't add up to 100 (the draft's
own sample has 80): they are ratios then.
"""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from meshwright.core import errors
from meshwright.manager.model.document import Document, FieldError, Strict, dns_label
from meshwright.manager.smi import quantity
from meshwright.manager.smi.traffic_split import QuantityBackend, service_name

_PERCENT = re.compile(r"\d{1,3}(\.\d{1,3})?%", re.ASCII)


def _share(entry: dict[str, str]) -> dict[str, str]:
    if len(entry) != 1:
        raise ValueError("write one service an entry, such as 'service-1: 50%'")
    [(name, percent)] = entry.items()
    dns_label(name)
    if not _PERCENT.fullmatch(percent) or quantity.amount(percent[:-1]) > 100:
        raise ValueError(f"{percent!r} isn't a share: write 0% to 100%")
    return entry


class CanarySpec(Strict):
    """`services`, or `service` and `backends`."""

    services: (
        Annotated[list[Annotated[dict[str, str], AfterValidator(_share)]], Field(min_length=1, max_length=64)] | None
    ) = None
    service: Annotated[str, AfterValidator(service_name)] | None = None
    backends: Annotated[list[QuantityBackend], Field(min_length=1, max_length=64)] | None = None

    @property
    def shares(self) -> list[tuple[str, str]]:
        """Services and what they get, as quantities."""
        found = [(name, percent.rstrip("%")) for entry in self.services or () for name, percent in entry.items()]
        return found or [(backend.service, backend.weight) for backend in self.backends or ()]


class Canary(Document):
    """Shares of one service's requests."""

    spec: CanarySpec

    @property
    def root(self) -> str:
        """The name of the service whose requests are shared out."""
        return self.spec.service.split(".", 1)[0] if self.spec.service else self.metadata.name

    @property
    def weights(self) -> list[tuple[str, int]]:
        """Services and whole weights."""
        shares = self.spec.shares
        whole = quantity.weights([share for _, share in shares])
        return [(name, weight) for (name, _), weight in zip(shares, whole, strict=True)]

    @model_validator(mode="after")
    def _form(self) -> Self:
        spec = self.spec
        if (spec.services is None) is (spec.backends is None) or (spec.backends is None) is not (spec.service is None):
            raise FieldError("spec", "write either services, or service and backends")
        field = "spec.services" if spec.services else "spec.backends"
        names = [name for name, _ in spec.shares]
        if twice := {name for name in names if names.count(name) > 1}:
            raise FieldError(field, f"service {min(twice)!r} is named twice: give it one share")
        if self.root in names:
            raise FieldError(
                field, f"the canary refers to itself: {self.root!r} is the service whose requests it shares out"
            )
        try:
            weights = self.weights
        except errors.ConfigError as error:
            raise FieldError(field, str(error)) from None
        if not any(weight for _, weight in weights):
            raise FieldError(field, "all shares are 0, so that no request could go anywhere: give one service a share")
        home = self.metadata.namespace or "default"
        whole = f"{self.root}.{home}.svc.cluster.local"
        if spec.service and not f"{whole}.".startswith(f"{spec.service}."):
            raise FieldError(
                "spec.service", f"{spec.service!r} isn't a service of namespace {home}: write {self.root!r}"
            )
        return self
