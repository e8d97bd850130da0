"""networking.istio.io/v1beta1 WorkloadEntry: one instance of a workload, with its address and identity.

`serviceAccount` is required here: it is the second half of the SPIFFE ID that callers verify and that the workload's
proxy must show to the manager.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from meshwright.manager.model.document import Document, Labels, Name, PortNumber, Strict, ip_address


class WorkloadEntrySpec(Strict):
    """`ports` gives the number for a service's port name where it differs from the service's own."""

    address: Annotated[str, AfterValidator(ip_address)]
    ports: Annotated[dict[str, PortNumber], Field(max_length=64)] = Field(default_factory=dict)
    labels: Labels = Field(default_factory=dict)
    service_account: Name


class WorkloadEntry(Document):
    """One instance of a workload."""

    spec: WorkloadEntrySpec
