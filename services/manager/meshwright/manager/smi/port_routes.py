"""specs.smi-spec.io TCPRoute and UDPRoute: ports of the destination; none means all of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from meshwright.manager.model.document import Document, PortNumber, Strict


class PortMatch(Strict):
    """Ports, and a name that rules may say."""

    name: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    ports: Annotated[list[PortNumber], Field(max_length=256)] = Field(default_factory=list)


class PortRouteSpec(Strict):
    """One match: an object, not a list."""

    matches: PortMatch = Field(default_factory=PortMatch)


class Nothing(Strict):
    """A spec without fields."""


class OldTCPRoute(Document):
    """v1alpha1 to v1alpha3: TCP, on whatever port."""

    spec: Nothing | None = None


class TCPRoute(Document):
    """v1alpha4: connections to ports."""

    spec: PortRouteSpec


class UDPRoute(Document):
    """v1alpha4: datagrams to ports."""

    spec: PortRouteSpec
