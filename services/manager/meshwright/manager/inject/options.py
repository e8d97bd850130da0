"""What the injector must know beside the pod."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """The platform that pods shall meet. `image` holds sidecar, redirection and network service client alike."""

    image: str
    pull_policy: str = "IfNotPresent"
    trust_domain: str = "mesh.local"
    platform_namespace: str = "meshwright-system"
    cluster_domain: str = "cluster.local"

    def part(self, name: str, port: int) -> str:
        """Return the address of a part of the platform."""
        return f"meshwright-{name}.{self.platform_namespace}.svc.{self.cluster_domain}:{port}"
