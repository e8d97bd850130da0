"""Which services a binding means (istio.mixer.v1.config.client.IstioService)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, model_validator

from meshwright.mixer.config.fields import Model

Name = Annotated[str, Field(min_length=1, max_length=253)]


class Service(Model):
    """A service by `name` (and namespace, by default the binding's), or by its whole name in `service` ("*": all).

    With `labels` only those of its versions that carry them all.
    """

    name: Annotated[str, Field(max_length=253)] = ""
    namespace: Annotated[str, Field(max_length=253)] = ""
    domain: Annotated[str, Field(max_length=253)] = ""
    service: Annotated[str, Field(max_length=1024)] = ""
    labels: Annotated[dict[str, str], Field(max_length=64)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        if bool(self.name) == bool(self.service):
            raise ValueError("needs either name or service")
        return self

    def means(self, host: str, labels: Mapping[str, str], home: str) -> bool:
        """Whether the service with this whole name (`shop.demo.svc.cluster.local`) is meant by a binding in `home`."""
        if any(labels.get(key) != value for key, value in self.labels.items()):
            return False
        if self.service:
            suffix = self.service.removeprefix("*")
            return host.endswith(suffix) if suffix != self.service else host == self.service
        domain = self.domain or "svc.cluster.local"
        return host == f"{self.name}.{self.namespace or home}.{domain}"


class SpecReference(Model):
    """A spec by name, by default in the binding's own namespace."""

    name: Name
    namespace: Annotated[str, Field(max_length=253)] = ""
