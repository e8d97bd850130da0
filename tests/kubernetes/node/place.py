"""Where a node's things are, and the addresses of its network, which no other network sees."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

ADDRESS = "10.234.0.2"  # the node's
SERVICES = "10.233.0.0/20"
API_SERVICE = "10.233.0.1"  # the first of SERVICES: the Service `kubernetes`
PODS = "10.233.64.0/24"
API = f"https://{ADDRESS}:6443"
NAME = "node1"
DOMAIN = "cluster.local"
ISSUER = f"https://kubernetes.default.svc.{DOMAIN}"
CONTAINERD = "/run/containerd/containerd.sock"  # in the box, as all that is below /run


@dataclass(frozen=True)
class Place:
    """A node's folder, and the folder of the programs that it runs."""

    folder: Path
    programs: Path

    def program(self, name: str) -> Path:
        """Return a program of tests/kubernetes/build.py."""
        return self.programs / name

    def certificate(self, name: str) -> Path:
        """Return where the certificate `name` is."""
        return self.folder / "pki" / f"{name}.crt"

    def key(self, name: str) -> Path:
        """Return where the private key of `name` is."""
        return self.folder / "pki" / f"{name}.key"

    def kubeconfig(self, user: str) -> Path:
        """Return how `user` finds the API server."""
        return self.folder / "pki" / f"{user}.kubeconfig"

    @property
    def cgroup(self) -> str:
        """Return the control group of its pods: each node on a machine has its own."""
        return f"meshwright-{hashlib.sha256(str(self.folder).encode()).hexdigest()[:8]}"

    def write(self, name: str, content: object) -> Path:
        """Write a configuration file, JSON where it isn't text."""
        path = self.folder / "etc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
        return path
