"""The two Kubernetes kinds that describe where services are: v1 Namespace and v1 Service."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PlainValidator, model_validator

from meshwright.manager.model.document import (
    Document,
    FieldError,
    Labels,
    Name,
    PortNumber,
    Strict,
    dns_label,
    ip_address,
)

ON_POLICY_OUTAGE = "meshwright.io/on-policy-outage"


class Namespace(Document):
    """A namespace; it has no content of its own."""


def _target(value: Any) -> int | str:
    if isinstance(value, str):
        return dns_label(value)
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535:
        return value
    raise ValueError("write a port number from 1 to 65535, or the name of a workload's port")


TargetPort = Annotated[int | str, PlainValidator(_target)]


class ServicePort(Strict):
    """One port. The protocol comes from `appProtocol`, or from the name up to its first '-'; none means HTTP."""

    name: Name | None = None
    port: PortNumber
    target_port: TargetPort | None = None
    protocol: Literal["TCP"] = "TCP"
    app_protocol: Name | None = None


ClusterIp = Annotated[str, AfterValidator(ip_address)]


def _distinct(ports: list[ServicePort]) -> list[ServicePort]:
    if len(ports) > 1 and any(port.name is None for port in ports):
        raise ValueError("a service with several ports must name each of them: add 'name'")
    for what in ("name", "port"):
        values = [str(getattr(port, what)) for port in ports]
        twice = {value for value in values if values.count(value) > 1}
        if twice:
            raise ValueError(f"two ports have the {what} {min(twice)}: give each its own")
    return ports


class ServiceSpec(Strict):
    """Ports, and the labels of the workloads behind them. `clusterIPs` are the cluster's addresses for the name."""

    ports: Annotated[list[ServicePort], Field(min_length=1, max_length=64), AfterValidator(_distinct)]
    selector: Labels = Field(default_factory=dict)
    type: Literal["ClusterIP"] = "ClusterIP"
    cluster_ips: Annotated[list[ClusterIp], Field(max_length=2, alias="clusterIPs")] = Field(default_factory=list)


class Service(Document):
    """A service: a name that workloads answer to."""

    spec: ServiceSpec

    @model_validator(mode="after")
    def _outage(self) -> Self:
        value = self.metadata.annotations.get(ON_POLICY_OUTAGE, "deny")
        if value not in ("allow", "deny"):
            raise FieldError(f"metadata.annotations.{ON_POLICY_OUTAGE}", f"is {value!r}: write 'allow' or 'deny'")
        return self
