"""Names that manager, proxies and other parts agree on: clusters, listeners, route configurations."""

from __future__ import annotations

from dataclasses import dataclass

from meshwright.core.identity import workload_id
from meshwright.manager.model.mesh import Port, Service

# Clusters of every proxy's bootstrap.
MANAGER, MIXER, AGENT, COLLECTOR = "meshwright-manager", "meshwright-mixer", "meshwright-agent", "meshwright-collector"

# Secrets that the agent serves: the workload's own certificate, and the authorities of its trust domain.
CERTIFICATE_SECRET, ROOTS_SECRET = "default", "ROOTCA"


@dataclass(frozen=True, slots=True)
class Parameters:
    """What translators must know beside the mesh. `sampling_percent`: share of requests that are traced, 0 to 100."""

    trust_domain: str = "mesh.local"
    sampling_percent: float = 100.0

    def spiffe_id(self, namespace: str, service_account: str) -> str:
        """Return the SPIFFE ID of a workload."""
        return workload_id(self.trust_domain, namespace, service_account)


def outbound(service: Service, port: Port) -> str:
    """Return the name of the cluster for a service's port."""
    return f"outbound|{port.number}||{service.host}"


def outbound_missing(namespace: str, service: str, port: Port) -> str:
    """Return the name that a service's cluster will have once the service exists."""
    return f"outbound|{port.number}||{service}.{namespace}.svc.cluster.local"


def inbound(number: int) -> str:
    """Return the name of the cluster for the application behind a port of its own proxy."""
    return f"inbound|{number}||"
