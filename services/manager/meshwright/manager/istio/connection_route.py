"""The parts of a VirtualService that are about connections (TLSRoute, TCPRoute)."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from meshwright.manager.istio.http_route import MAX_MATCHES, Destination, Weight
from meshwright.manager.istio.names import GatewayName, Port, WildcardHost
from meshwright.manager.model.document import Labels, Name, Strict
from meshwright.manager.model.subnet import Subnet

Subnets = Annotated[list[Subnet], Field(max_length=64)]
Gateways = Annotated[list[GatewayName], Field(max_length=64)]


class RouteDestination(Strict):
    """One that answers, and its share."""

    destination: Destination
    weight: Weight = 0


Destinations = Annotated[list[RouteDestination], Field(min_length=1, max_length=64)]


class L4MatchAttributes(Strict):
    """Conditions on a connection, all of which must hold."""

    destination_subnets: Subnets = Field(default_factory=list)
    source_subnet: Subnet | None = None
    port: Port | None = None
    source_labels: Labels = Field(default_factory=dict)
    gateways: Gateways = Field(default_factory=list)
    source_namespace: Name | None = None


class TcpRoute(Strict):
    """Where connections go that any of `match` fits; none: all."""

    match: Annotated[list[L4MatchAttributes], Field(max_length=MAX_MATCHES)] = Field(default_factory=list)
    route: Destinations


class TlsMatchAttributes(Strict):
    """Conditions on a TLS connection that isn't ended here; `sni_hosts` are names of its client hello."""

    sni_hosts: Annotated[list[WildcardHost], Field(min_length=1, max_length=64)]
    destination_subnets: Subnets = Field(default_factory=list)
    port: Port | None = None
    source_labels: Labels = Field(default_factory=dict)
    gateways: Gateways = Field(default_factory=list)
    source_namespace: Name | None = None


class TlsRoute(Strict):
    """Where TLS connections go that any of `match` fits."""

    match: Annotated[list[TlsMatchAttributes], Field(min_length=1, max_length=MAX_MATCHES)]
    route: Destinations

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if len(self.route) > 1 and not any(entry.weight for entry in self.route):
            raise ValueError("all weights are 0, so that no connection could go anywhere: give at least one a weight")
        return self
