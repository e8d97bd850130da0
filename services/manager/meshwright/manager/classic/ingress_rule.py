"""config.istio.io/v1alpha2 IngressRule: which requests from outside of the mesh go to a service.

They come in at the proxies of the workloads labelled ``istio: ingress``; `tls_secret` names the certificate that these
show (SDS), and a rule without one is served in plain HTTP.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from meshwright.manager.classic.match import MatchCondition, no_labels
from meshwright.manager.classic.message import IstioService, Message
from meshwright.manager.classic.route_rule import MAX_PRECEDENCE
from meshwright.manager.model.document import Document, FieldError, Name, PortNumber


class IngressRuleSpec(Message):
    """`port` is the ingress proxies' own; left out it is 443 with a certificate and 80 without."""

    port: PortNumber | None = None
    tls_secret: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    precedence: Annotated[int, Field(ge=-MAX_PRECEDENCE - 1, le=MAX_PRECEDENCE)] = 0
    match: MatchCondition | None = None
    destination: IstioService
    destination_port: PortNumber | None = None
    destination_port_name: Name | None = None


class IngressRule(Document):
    """Which requests from outside go to a service."""

    spec: IngressRuleSpec

    @model_validator(mode="after")
    def _sense(self) -> Self:
        spec = self.spec
        no_labels("spec.destination.labels", spec.destination.labels)
        if (spec.destination_port is None) == (spec.destination_port_name is None):
            raise FieldError(
                "spec.destinationPort", "write the destination's port: destinationPort or destinationPortName"
            )
        if spec.match is not None and spec.match.source is not None:
            raise FieldError("spec.match.source", "callers from outside are no workloads of the mesh: remove it")
        if spec.match is not None and spec.match.tcp is not None:
            raise FieldError(
                "spec.match.tcp", "an ingress rule is for requests: match by request.headers, or remove it"
            )
        return self
