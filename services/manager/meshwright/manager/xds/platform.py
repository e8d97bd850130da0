"""Names of what every proxy's bootstrap has, and of proxies themselves. It loads nothing: sidecars start with it."""

from __future__ import annotations

from meshwright.manager.model.domain import DOMAIN

# Clusters of every proxy's bootstrap.
MANAGER, MIXER, AGENT, COLLECTOR = "meshwright-manager", "meshwright-mixer", "meshwright-agent", "meshwright-collector"

# Secrets that the agent serves: the workload's own certificate, and the authorities of its trust domain.
CERTIFICATE_SECRET, ROOTS_SECRET = "default", "ROOTCA"


def node_id(namespace: str, workload: str, address: str = "127.0.0.1") -> str:
    """Return the id that a workload's proxy gives itself."""
    return f"sidecar~{address}~{workload}.{namespace}~{namespace}.{DOMAIN}"
