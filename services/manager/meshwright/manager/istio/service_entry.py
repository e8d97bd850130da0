"""networking.istio.io/v1 ServiceEntry: hosts that no Service describes, outside of the mesh or inside."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from meshwright.manager.istio.http_route import ShortText
from meshwright.manager.istio.names import MAX_HOSTS, Exports, Port, WildcardHost
from meshwright.manager.model.document import Document, FieldError, Labels, Name, Strict
from meshwright.manager.model.domain import service_of
from meshwright.manager.model.subnet import Subnet

PROTOCOLS = ("HTTP", "HTTPS", "HTTP2", "GRPC", "GRPC-WEB", "TLS", "TCP", "MONGO", "REDIS", "MYSQL")


def protocol(text: str) -> str:
    """Accept a protocol in any case, and give it in lower case."""
    if text.upper() not in PROTOCOLS:
        raise ValueError(f"{text!r} isn't a protocol: write one of {', '.join(PROTOCOLS)}")
    return text.lower()


Protocol = Annotated[str, AfterValidator(protocol)]


class ServicePort(Strict):
    """A port of the hosts; `target_port` is the endpoints' own where it differs."""

    number: Port
    name: ShortText
    protocol: Protocol = "tcp"
    target_port: Port | None = None


class WorkloadEntrySpec(Strict):
    """One endpoint: an address, a DNS name, or a Unix socket (``unix:///path``)."""

    address: Annotated[str, Field(min_length=1, max_length=253)]
    ports: Annotated[dict[str, Port], Field(max_length=64)] = Field(default_factory=dict)
    labels: Labels = Field(default_factory=dict)
    network: Annotated[str, Field(max_length=253)] = ""
    locality: Annotated[str, Field(max_length=256)] = ""
    weight: Annotated[int, Field(ge=0, le=2**20)] | None = None
    service_account: Name | None = None


class Selector(Strict):
    """The workloads of the namespace that are its endpoints."""

    labels: Annotated[Labels, Field(min_length=1)]


class ServiceEntrySpec(Strict):
    """The hosts, how they are found, and what they speak."""

    hosts: Annotated[list[WildcardHost], Field(min_length=1, max_length=MAX_HOSTS)]
    addresses: Annotated[list[Subnet], Field(max_length=256)] = Field(default_factory=list)
    ports: Annotated[list[ServicePort], Field(max_length=64)] = Field(default_factory=list)
    location: Literal["MESH_EXTERNAL", "MESH_INTERNAL"] = "MESH_EXTERNAL"
    resolution: Literal["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"] = "NONE"
    endpoints: Annotated[list[WorkloadEntrySpec], Field(max_length=1000)] = Field(default_factory=list)
    workload_selector: Selector | None = None
    export_to: Exports = Field(default_factory=list)
    subject_alt_names: Annotated[list[ShortText], Field(max_length=64)] = Field(default_factory=list)


class ServiceEntry(Document):
    """Hosts that no Service describes."""

    spec: ServiceEntrySpec

    @model_validator(mode="after")
    def _sense(self) -> Self:
        spec = self.spec
        if "*" in spec.hosts:
            raise FieldError("spec.hosts", "'*' is every host there is: name them, or a domain such as *.example.com")
        inside = [host for host in spec.hosts if service_of(host)]
        if inside:
            raise FieldError("spec.hosts", f"{inside[0]} is the name of a Service: write one, its pods are found by it")
        for what in ("number", "name"):
            values = [str(getattr(port, what)) for port in spec.ports]
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise FieldError("spec.ports", f"two ports have the {what} {twice[0]}: give each its own")
        if spec.endpoints and spec.workload_selector is not None:
            raise FieldError("spec.endpoints", "has endpoints and workloadSelector: write one of them")
        wild = [host for host in spec.hosts if host.startswith("*")]
        if spec.resolution == "NONE" and spec.endpoints:
            raise FieldError("spec.endpoints", "resolution NONE goes where the caller dialled: write STATIC or DNS")
        if spec.resolution == "STATIC" and not spec.endpoints and spec.workload_selector is None:
            raise FieldError(
                "spec.endpoints", "resolution STATIC needs the addresses: write endpoints or workloadSelector"
            )
        if spec.resolution in ("DNS", "DNS_ROUND_ROBIN") and wild and not spec.endpoints:
            raise FieldError("spec.hosts", f"{wild[0]} can't be looked up: write endpoints with names, or DYNAMIC_DNS")
        if spec.resolution == "DYNAMIC_DNS" and len(wild) != len(spec.hosts):
            raise FieldError(
                "spec.resolution", "DYNAMIC_DNS is for hosts such as *.example.com: write DNS for a whole name"
            )
        names = {port.name for port in spec.ports}
        for number, endpoint in enumerate(spec.endpoints):
            self._endpoint(number, endpoint, names)
        return self

    def _endpoint(self, number: int, endpoint: WorkloadEntrySpec, names: set[str]) -> None:
        where = f"spec.endpoints[{number}]"
        strange = sorted({*endpoint.ports} - names)
        if strange:
            raise FieldError(
                f"{where}.ports", f"{strange[0]} isn't one of spec.ports: write one of {', '.join(sorted(names))}"
            )
        if endpoint.address.startswith("unix://"):
            if not endpoint.address.startswith("unix:///") or len(endpoint.address) > len("unix://") + 107:
                raise FieldError(
                    f"{where}.address", "isn't a Unix socket: write unix:///absolute/path, 107 bytes at most"
                )
            if self.spec.resolution != "STATIC":
                raise FieldError(f"{where}.address", "a Unix socket isn't looked up: write resolution STATIC")
            if len(names) != 1 or endpoint.ports:
                raise FieldError(f"{where}.address", "a Unix socket has no ports: keep one in spec.ports and none here")
        elif self.spec.resolution == "STATIC" and not _is_address(endpoint.address):
            raise FieldError(f"{where}.address", "isn't an IP address: write one, or resolution DNS for names")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
