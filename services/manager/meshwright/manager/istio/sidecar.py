"""networking.istio.io/v1beta1 Sidecar: which ports a workload's proxy serves and where the application meets it.

One decision to know: application and proxy meet on Unix sockets only. On a TCP port, loopback included, every user of
the machine could speak with the workload's identity.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from meshwright.manager.model.document import Document, Labels, Name, PortNumber, Strict, ip_address

_MAX_SOCKET_PATH = 107  # sun_path of Linux, without its closing zero
_HOST = re.compile(r"(\*|\.|~|[a-z0-9]([-a-z0-9]*[a-z0-9])?)/(\*|(\*\.)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?)")


def _socket(text: str) -> str:
    path = text.removeprefix("unix://")
    if path == text or not path.startswith("/") or "\0" in path:
        raise ValueError(f"{text!r} isn't a Unix socket: write unix:///absolute/path")
    if len(path.encode()) > _MAX_SOCKET_PATH:
        raise ValueError(
            f"the path has {len(path.encode())} bytes: Linux takes {_MAX_SOCKET_PATH} at most, use a shorter one"
        )
    return text


def _hosts(hosts: list[str]) -> list[str]:
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise ValueError(
                f"{host!r} isn't NAMESPACE/HOST: write for example ./*, */* or shop/catalog.shop.svc.cluster.local"
            )
    return hosts


Socket = Annotated[str, AfterValidator(_socket)]


class SidecarPort(Strict):
    """A port of the proxy. GRPC and HTTP2 speak HTTP/2 to the application, HTTP speaks HTTP/1.1."""

    number: PortNumber
    protocol: Literal["HTTP", "HTTP2", "GRPC"] = "HTTP"
    name: Name | None = None


class IngressListener(Strict):
    """A port for calls from the mesh: mutual TLS outside, the application's Unix socket inside."""

    port: SidecarPort
    bind: Annotated[str, AfterValidator(ip_address)] | None = None
    default_endpoint: Socket


class EgressListener(Strict):
    """The Unix socket on which the application reaches the mesh; `hosts` limits what it sees (default: all).

    Without `bind` it is for injected pods, whose connections the kernel sends to the proxy: they see these hosts only.
    """

    bind: Socket | None = None
    port: Any = None
    capture_mode: Literal["DEFAULT", "IPTABLES", "NONE"] = "DEFAULT"
    hosts: Annotated[list[str], Field(min_length=1, max_length=256), AfterValidator(_hosts)] = Field(
        default_factory=lambda: ["*/*"]
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.port is not None:
            raise ValueError("port limits hosts by the dialled port, which this mesh doesn't: list all hosts in one")
        if self.capture_mode == "NONE" and self.bind is None:
            raise ValueError("captureMode NONE takes no connections: write bind with the Unix socket that does")
        if self.capture_mode == "IPTABLES" and self.bind is not None:
            raise ValueError("captureMode IPTABLES is for injected pods, bind for Unix sockets: keep one")
        return self


def _distinct_ports(ingress: list[IngressListener]) -> list[IngressListener]:
    numbers = [listener.port.number for listener in ingress]
    twice = {number for number in numbers if numbers.count(number) > 1}
    if twice:
        raise ValueError(f"two listeners have port {min(twice)}: give each its own")
    return ingress


def _distinct_binds(egress: list[EgressListener]) -> list[EgressListener]:
    binds = [listener.bind for listener in egress if listener.bind is not None]
    twice = {bind for bind in binds if binds.count(bind) > 1}
    if twice:
        raise ValueError(f"two listeners are bound to {min(twice)}: give each its own")
    return egress


class OutboundTrafficPolicy(Strict):
    """What an injected pod may reach beside the hosts that it sees: nothing (REGISTRY_ONLY), or any address."""

    mode: Literal["REGISTRY_ONLY", "ALLOW_ANY"] = "REGISTRY_ONLY"
    egress_proxy: Any = None

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.egress_proxy is not None:
            raise ValueError("egressProxy isn't known to this mesh: lead hosts through a gateway by a VirtualService")
        return self


class WorkloadSelector(Strict):
    """The labels of the workloads that a Sidecar is for."""

    labels: Annotated[Labels, Field(min_length=1)]


class SidecarSpec(Strict):
    """Without a selector the Sidecar is for every workload of its namespace that no other one selects."""

    workload_selector: WorkloadSelector | None = None
    ingress: Annotated[list[IngressListener], Field(max_length=64), AfterValidator(_distinct_ports)] = Field(
        default_factory=list
    )
    egress: Annotated[list[EgressListener], Field(max_length=64), AfterValidator(_distinct_binds)] = Field(
        default_factory=list
    )
    outbound_traffic_policy: OutboundTrafficPolicy | None = None


class Sidecar(Document):
    """What the proxies of some workloads serve."""

    spec: SidecarSpec
