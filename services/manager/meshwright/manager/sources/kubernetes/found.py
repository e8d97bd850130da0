"""What is kept of a cluster's objects: pure functions from the API server's JSON to the mesh's own values.

One decision to know: these objects were judged by the API server and belong to others, so unlike documents that people
write for the mesh they are read leniently: what the mesh doesn't know is ignored, and what it can't carry is left out.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from meshwright.manager.istio.workload_entry import INJECTED
from meshwright.manager.model.kubernetes import ON_POLICY_OUTAGE
from meshwright.manager.model.mesh import Pod, Port, Proxy, Service, Workload, protocol
from meshwright.manager.sources.kubernetes.reflector import Raw

_OURS = "meshwright.io/"
_OF_SERVICE = "kubernetes.io/service-name"
_MAX_PORTS = 256


@dataclass(frozen=True, slots=True)
class FoundService:
    """A service, and which family of addresses its callers use."""

    service: Service
    family: str


@dataclass(frozen=True, slots=True)
class SliceEndpoint:
    """One address of a slice, and the pod that has it, if one does."""

    address: str
    pod: str
    zone: str
    ready: bool
    leaving: bool  # it serves on while it terminates


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a service's endpoints; `ports` by name."""

    service: str
    family: str
    ports: tuple[tuple[str, int], ...]
    endpoints: tuple[SliceEndpoint, ...]


def service(raw: Raw) -> FoundService | None:
    """Read a v1 Service; None for one without TCP ports, or that is only another name for a host elsewhere."""
    metadata, spec = raw["metadata"], raw.get("spec") or {}
    ports = tuple(
        _port(port) for port in (spec.get("ports") or ())[:_MAX_PORTS] if port.get("protocol", "TCP") == "TCP"
    )
    if spec.get("type") == "ExternalName" or not ports:
        return None
    addresses = tuple(
        str(ipaddress.ip_address(address))
        for address in spec.get("clusterIPs") or [spec.get("clusterIP") or ""]
        if address and address != "None"
    )
    families = spec.get("ipFamilies") or ["IPv6" if addresses and ":" in addresses[0] else "IPv4"]
    found = Service(
        metadata["namespace"],
        metadata["name"],
        ports,
        tuple(sorted((spec.get("selector") or {}).items())),
        (metadata.get("annotations") or {}).get(ON_POLICY_OUTAGE) == "allow",  # anything else is the safe answer
        addresses,
        headless=not addresses,
    )
    return FoundService(found, families[0])


def _port(raw: Raw) -> Port:
    name, number = raw.get("name") or "", int(raw["port"])
    target = raw.get("targetPort")
    return Port(
        name, number, number if target in (None, 0, "") else target, protocol(name, raw.get("appProtocol") or "")
    )


def endpoint_slice(raw: Raw) -> Slice | None:
    """Read a discovery.k8s.io/v1 EndpointSlice; None for one that is no service's or holds host names."""
    service_name = (raw["metadata"].get("labels") or {}).get(_OF_SERVICE)
    if not service_name or raw.get("addressType") not in ("IPv4", "IPv6"):
        return None
    ports = tuple(
        (port.get("name") or "", int(port["port"]))
        for port in raw.get("ports") or ()
        if port.get("port") and port.get("protocol", "TCP") == "TCP"
    )
    endpoints = tuple(_endpoint(endpoint) for endpoint in raw.get("endpoints") or () if endpoint.get("addresses"))
    return Slice(service_name, raw["addressType"], ports, endpoints)


def _endpoint(raw: Raw) -> SliceEndpoint:
    conditions, target = raw.get("conditions") or {}, raw.get("targetRef") or {}
    ready = conditions.get("ready") is not False
    return SliceEndpoint(
        str(ipaddress.ip_address(raw["addresses"][0])),  # more than one has no meaning of its own
        target.get("name") or "" if target.get("kind") == "Pod" else "",
        raw.get("zone") or "",
        ready,
        bool(conditions.get("terminating")) and conditions.get("serving", ready) is not False,
    )


def pod(raw: Raw) -> Workload | None:
    """Read a v1 Pod; None for one that has no address yet, or has ended and will not use it again."""
    metadata, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    address = status.get("podIP")
    if not address or status.get("phase") in ("Succeeded", "Failed"):
        return None
    annotations = {key: value for key, value in (metadata.get("annotations") or {}).items() if key.startswith(_OURS)}
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    return Workload(
        metadata["namespace"],
        metadata["name"],
        str(ipaddress.ip_address(address)),
        {
            port["name"]: int(port["containerPort"])
            for container in containers
            for port in container.get("ports") or ()
            if port.get("name") and port.get("protocol", "TCP") == "TCP"
        },
        metadata.get("labels") or {},
        spec.get("serviceAccountName") or "default",
        Proxy.REDIRECT if annotations.get(INJECTED) == Proxy.REDIRECT.value else Proxy.NONE,
        Pod(metadata.get("uid") or "", _owner(metadata), spec.get("nodeName") or "", annotations),
    )


def _owner(metadata: dict[str, Any]) -> str:
    """Return who made a pod, as a person would say it: a Deployment, not the ReplicaSet of its present version."""
    owner = next((owner for owner in metadata.get("ownerReferences") or () if owner.get("controller")), None)
    if owner is None:
        return f"Pod/{metadata['name']}"
    kind, name = owner["kind"], owner["name"]
    version = (metadata.get("labels") or {}).get("pod-template-hash")
    if kind == "ReplicaSet" and version and name.endswith(f"-{version}"):
        return f"Deployment/{name.removesuffix(f'-{version}')}"
    return f"{kind}/{name}"


def namespace(raw: Raw) -> str | None:
    """Read a v1 Namespace: that it is there is all that is wanted."""
    return str(raw["metadata"]["name"])
