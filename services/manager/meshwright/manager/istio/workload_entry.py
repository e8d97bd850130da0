"""networking.istio.io/v1beta1 WorkloadEntry: one instance of a workload, with its address and identity.

`serviceAccount` is required here: it is the second half of the SPIFFE ID that callers verify and that the workload's
proxy must show to the manager.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from meshwright.manager.model.document import Document, FieldError, Labels, Name, PortNumber, Strict, ip_address

INJECTED = "meshwright.io/injected"
"""Annotation that says how the workload's proxy meets it; the injector writes `redirect` on pods."""


class WorkloadEntrySpec(Strict):
    """`ports` gives the number for a service's port name where it differs from the service's own."""

    address: Annotated[str, AfterValidator(ip_address)]
    ports: Annotated[dict[str, PortNumber], Field(max_length=64)] = Field(default_factory=dict)
    labels: Labels = Field(default_factory=dict)
    service_account: Name


class WorkloadEntry(Document):
    """One instance of a workload."""

    spec: WorkloadEntrySpec

    @model_validator(mode="after")
    def _injected(self) -> Self:
        value = self.metadata.annotations.get(INJECTED, "sockets")
        if value not in ("sockets", "redirect", "none"):
            raise FieldError(f"metadata.annotations.{INJECTED}", f"is {value!r}: write 'sockets', 'redirect' or 'none'")
        return self
