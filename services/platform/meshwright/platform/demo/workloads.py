"""The demo's workloads: shop → catalog (v1, v2) → stock, with their ports, sockets and identities."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from meshwright.core.identity import workload_id
from meshwright.platform.up.layout import Layout
from meshwright.platform.up.ports import Port

NAMESPACE = "demo"
_FIRST_PORT = 15601
_BASE_OFFSET = 20  # of the demo's ports in a run with --base-port


@dataclass(frozen=True, slots=True)
class Workload:
    """One instance of a service with its sidecar."""

    name: str
    app: str
    version: str
    port: Port
    upstream: str | None

    @property
    def host(self) -> str:
        """The service's whole DNS name."""
        return f"{self.app}.{NAMESPACE}.svc.cluster.local"

    def spiffe_id(self, trust_domain: str) -> str:
        """The workload's identity."""
        return workload_id(trust_domain, NAMESPACE, self.app)

    def inbound(self, layout: Layout) -> Path:
        """The socket that the application serves."""
        return layout.socket(self.name)

    def outbound(self, layout: Layout) -> Path:
        """The socket on which the sidecar takes the application's calls."""
        return layout.socket(f"{self.name}-out")

    def envoy_admin(self, layout: Layout) -> Path:
        """The sidecar's admin socket."""
        return layout.socket(f"{self.name}-envoy")


def workloads(base_port: int | None) -> tuple[Workload, ...]:
    """Return shop → catalog (v1, v2) → stock."""
    first = _FIRST_PORT if base_port is None else base_port + _BASE_OFFSET
    chain = [
        ("shop", "shop", "v1", "catalog"),
        ("catalog-v1", "catalog", "v1", "stock"),
        ("catalog-v2", "catalog", "v2", "stock"),
        ("stock", "stock", "v1", None),
    ]
    return tuple(
        Workload(name, app, version, Port(first + index, f"{name} sidecar", "calls from the mesh"), upstream)
        for index, (name, app, version, upstream) in enumerate(chain)
    )
