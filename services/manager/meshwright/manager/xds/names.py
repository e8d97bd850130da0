"""Names that manager, proxies and other parts agree on: clusters, listeners, route configurations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from meshwright.core.spiffe import workload_id
from meshwright.manager.model.mesh import Port, Service

# Ports to which the init container redirects an injected pod's connections, and clusters that only its proxy has.
OUTBOUND_PORT, INBOUND_PORT = 15001, 15006
PASS_THROUGH, INBOUND_PASS_THROUGH, NOWHERE = "outbound-unknown", "inbound-unknown", "nowhere"


@dataclass(frozen=True, slots=True)
class Parameters:
    """What translators must know beside the mesh. `sampling_percent`: share of requests that are traced, 0 to 100.

    `closed`: what no rule grants is refused, at workloads that no rule is about as well.

    Of redirecting proxies: `inbound_plaintext` lets callers without a certificate in; `outbound_plaintext` lets their
    applications call pods that have no proxy; `outbound_unknown` lets them reach addresses that belong to no service of
    the mesh.
    """

    trust_domain: str = "mesh.local"
    sampling_percent: float = 100.0
    closed: bool = False
    inbound_plaintext: bool = False
    outbound_plaintext: bool = True
    outbound_unknown: bool = True

    def spiffe_id(self, namespace: str, service_account: str) -> str:
        """Return the SPIFFE ID of a workload."""
        return workload_id(self.trust_domain, namespace, service_account)


def outbound(service: Service, port: Port, subset: str = "") -> str:
    """Return the name of the cluster for a service's port, or for a subset of its workloads there."""
    return outbound_to(service.host, port.number, subset)


def outbound_to(host: str, port: int, subset: str = "") -> str:
    """Return the name of the cluster for a host's port, whether it exists or not."""
    return f"outbound|{port}|{subset}|{host}"


def group(labels: Iterable[tuple[str, str]]) -> str:
    """Return what stands for a subset's name where workloads are named by their labels."""
    return ",".join(f"{key}={value}" for key, value in labels)


def inbound(number: int) -> str:
    """Return the name of the cluster for the application behind a port of its own proxy."""
    return f"inbound|{number}||"
