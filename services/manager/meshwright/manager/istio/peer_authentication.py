"""security.istio.io/v1 PeerAuthentication: whether callers must show a certificate of the mesh.

The narrowest that says something decides: of a workload's port, of the workload, of its namespace, of the mesh.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from meshwright.manager.istio.selector import Selecting
from meshwright.manager.model.document import Document, FieldError, Strict

Mode = Literal["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]


class MutualTls(Strict):
    """What callers show: DISABLE nothing, STRICT a certificate, PERMISSIVE one or the other."""

    mode: Mode = "UNSET"


def _port(text: str) -> str:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise ValueError(f"{text!r} isn't a port: write a number from 1 to 65535")
    return text


class PeerAuthenticationSpec(Selecting):
    """`port_level_mtls` is by the workload's own port."""

    mtls: MutualTls | None = None
    port_level_mtls: Annotated[dict[Annotated[str, AfterValidator(_port)], MutualTls], Field(max_length=64)] = Field(
        default_factory=dict
    )


class PeerAuthentication(Document):
    """How callers of workloads connect."""

    spec: PeerAuthenticationSpec = PeerAuthenticationSpec()

    @model_validator(mode="after")
    def _ports_of_workloads(self) -> Self:
        if self.spec.port_level_mtls and not self.spec.labels:
            raise FieldError("spec.portLevelMtls", "ports are those of workloads: write selector.matchLabels too")
        return self
