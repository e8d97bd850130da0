"""networking.istio.io/v1 VirtualService: where requests and connections to some hosts go.

One without hosts is a delegate: its routes stand where another's `delegate` names it, and delegate no further.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from meshwright.manager.istio.connection_route import TcpRoute, TlsRoute
from meshwright.manager.istio.http_route import HttpRoute, shares
from meshwright.manager.istio.names import MAX_HOSTS, Exports, GatewayName, WildcardHost
from meshwright.manager.model.document import Document, FieldError, Strict
from meshwright.manager.model.routing import MESH

MAX_ROUTES = 1000


class VirtualServiceSpec(Strict):
    """`gateways` left out means ``mesh``: the proxies of callers."""

    hosts: Annotated[list[WildcardHost], Field(max_length=MAX_HOSTS)] = Field(default_factory=list)
    gateways: Annotated[list[GatewayName], Field(max_length=64)] = Field(default_factory=list)
    http: Annotated[list[HttpRoute], Field(max_length=MAX_ROUTES)] = Field(default_factory=list)
    tls: Annotated[list[TlsRoute], Field(max_length=MAX_ROUTES)] = Field(default_factory=list)
    tcp: Annotated[list[TcpRoute], Field(max_length=MAX_ROUTES)] = Field(default_factory=list)
    export_to: Exports = Field(default_factory=list)


class VirtualService(Document):
    """Where requests and connections to some hosts go."""

    spec: VirtualServiceSpec

    @model_validator(mode="after")
    def _sense(self) -> Self:
        spec = self.spec
        if not (spec.http or spec.tls or spec.tcp):
            raise FieldError("spec.http", "there are no routes: write http, tls or tcp")
        if not spec.hosts:
            self._delegate()
        if "*" in spec.hosts and (not spec.gateways or MESH in spec.gateways):
            raise FieldError("spec.hosts", "'*' is for gateways: in the mesh, name the hosts, or write gateways")
        twice = sorted({host for host in spec.hosts if spec.hosts.count(host) > 1})
        if twice:
            raise FieldError("spec.hosts", f"{twice[0]} is there twice: write it once")
        for number, route in enumerate(spec.http):
            shares(route.route, f"spec.http[{number}].route")
        for index, tls in enumerate(spec.tls):
            for condition in tls.match:
                strange = [name for name in condition.sni_hosts if not any(_within(name, host) for host in spec.hosts)]
                if strange:
                    raise FieldError(
                        f"spec.tls[{index}].match",
                        f"{strange[0]} isn't one of this object's hosts: add it to spec.hosts",
                    )
        return self

    def _delegate(self) -> None:
        spec = self.spec
        if spec.gateways:
            raise FieldError("spec.gateways", "without hosts this is a delegate, which holds where its root does")
        if spec.tls or spec.tcp:
            raise FieldError("spec.hosts", "tls and tcp routes need hosts: a delegate (no hosts) has http routes only")
        for number, route in enumerate(spec.http):
            if route.delegate is not None:
                raise FieldError(f"spec.http[{number}].delegate", "a delegate can't delegate further: write the routes")


def _within(name: str, host: str) -> bool:
    return host in (name, "*") or (host.startswith("*.") and name.endswith(host[1:]))
