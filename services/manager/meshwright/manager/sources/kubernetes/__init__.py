"""A Kubernetes cluster as the manager reads it.

    API server ─▶ reflector (one a kind) ─▶ landscape: services and pods ─▶ catalogue      every replica
                                               └▶ candidates ─▶ admission ─▶ mirror ─▶ store     one elected replica
                                                                                └────▶ status of the custom resources

The cluster is the truth for both halves. Services and pods change often, are resolved by every replica for itself and
are never written to the store; custom resources are configuration, and are mirrored into the store once, so that the
other services see them as they see everything else.
"""

from __future__ import annotations

from pathlib import Path

from meshwright.core.kubernetes import Api, Kubeconfig, Server, in_cluster
from meshwright.manager.sources.kubernetes.cluster import Cluster

__all__ = ["Api", "Cluster", "server"]


def server(kubeconfig: Path | None) -> Server:
    """Return the API server that a file names, or that of the pod that this process runs in."""
    return Kubeconfig.read(kubeconfig) if kubeconfig else in_cluster()
