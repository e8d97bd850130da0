"""access.smi-spec.io TrafficTarget: which sources may reach a destination, by which routes.

Every version's fields are here; v1alpha4 is the form that is kept, and `smi.conversion` brings the others into it
(SMI §Traffic Access Control).
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from meshwright.manager.model.document import Document, FieldError, Name, PortNumber, Strict
from meshwright.manager.smi import carried

Some = Field(min_length=1, max_length=64)


class Subject(Strict):
    """A service account, or an IdentityBinding, by its name."""

    kind: Literal["ServiceAccount", "IdentityBinding"]
    name: Name
    namespace: Name | None = None
    group: Literal["", "access.smi-spec.io"] | None = None  # examples of the specification write it


class SubjectWithPort(Subject):
    """v1alpha1 and v1alpha2: with a port."""

    port: PortNumber | None = None


class OldRule(Strict):
    """v1alpha1 and v1alpha2: routes are HTTP's or TCP's."""

    kind: Literal["HTTPRouteGroup", "TCPRoute"]
    name: Name
    matches: Annotated[list[str], Field(max_length=64)] | None = None


class Rule(Strict):
    """Routes in the target's own namespace; no `matches`: all that the routes have."""

    kind: Literal["HTTPRouteGroup", "TCPRoute", "UDPRoute"]
    name: Name
    matches: Annotated[list[str], Field(max_length=64)] | None = None


class TrafficTargetV1(Document):
    """v1alpha1: without a spec."""

    destination: SubjectWithPort
    sources: Annotated[list[SubjectWithPort], Some] | None = None
    specs: Annotated[list[OldRule], Some] | None = None


class TrafficTargetSpecV2(Strict):
    """v1alpha2: `specs` are called `rules`."""

    destination: SubjectWithPort
    sources: Annotated[list[SubjectWithPort], Some] | None = None
    rules: Annotated[list[OldRule], Some] | None = None


class TrafficTargetV2(Document):
    """v1alpha2."""

    spec: TrafficTargetSpecV2


class TrafficTargetSpec(Strict):
    """v1alpha3 and v1alpha4: ports are those of routes."""

    destination: Subject
    sources: Annotated[list[Subject], Field(max_length=64)]
    rules: Annotated[list[Rule], Field(max_length=64)]


class TrafficTarget(Document):
    """Sources that may reach a destination."""

    spec: TrafficTargetSpec

    @property
    def port(self) -> int | None:
        """The destination's port, as versions before v1alpha3 name it; None: any."""
        text = self.metadata.annotations.get(carried.DESTINATION_PORT)
        return int(text) if text else None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        absent = self.metadata.annotations.get(carried.ABSENT, "").split(",")
        for name in ("sources", "rules"):
            if not getattr(self.spec, name) and name not in absent:
                raise FieldError(f"spec.{name}", "has no entries: a target needs at least one source and one rule")
        return self

    @model_validator(mode="after")
    def _places(self) -> Self:
        port = self.metadata.annotations.get(carried.DESTINATION_PORT)
        if port is not None and not (port.isascii() and port.isdecimal() and 1 <= int(port[:6]) <= 65535):
            raise FieldError(f"metadata.annotations.{carried.DESTINATION_PORT}", f"is {port!r}: write a port")
        home = self.metadata.namespace or "default"
        where = self.spec.destination.namespace
        if where not in (None, home):
            raise FieldError(
                "spec.destination.namespace",
                f"is {where}, but the target is in {home}: who may reach a workload is said in its own namespace",
            )
        return self


class TrafficTargetV3(TrafficTarget):
    """v1alpha3: as v1alpha4."""
