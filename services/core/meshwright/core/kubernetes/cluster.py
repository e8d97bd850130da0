"""Where the API server is and how this process shows who it is: what the kubelet puts into every pod, or a kubeconfig.

One decision to know: the token is read from its file for each request; the kubelet replaces it before it ends.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from meshwright.core import errors

FOLDER = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where the kubelet puts a pod's `token` and `ca.crt`."""


class Server(Protocol):
    """What is known of an API server before it is asked."""

    @property
    def url(self) -> str:
        """Where it is."""
        ...

    def tls(self) -> ssl.SSLContext:
        """Return the context that verifies the server, and shows our certificate where we have one."""
        ...

    def authorization(self) -> str:
        """Return the value of the header that says who we are; nothing where a certificate does."""
        ...


@dataclass(frozen=True, slots=True)
class Cluster:
    """An API server: its URL, the file with our token, the file with the authorities that signed its certificate."""

    url: str
    token: Path
    ca: Path

    def tls(self) -> ssl.SSLContext:
        """Return the context that verifies the server; ConfigError when its authorities can't be read."""
        try:
            return ssl.create_default_context(cafile=self.ca)
        except OSError as error:
            raise errors.ConfigError(
                f"can't read {self.ca}: {error}",
                field="kubernetes",
                remedy="run in a pod with automountServiceAccountToken",
            ) from error

    def authorization(self) -> str:
        """Return the value of the header that says who we are."""
        try:
            return f"Bearer {self.token.read_text().strip()}"
        except OSError as error:
            raise errors.ConfigError(
                f"can't read {self.token}: {error.strerror}",
                field="kubernetes",
                remedy="run in a pod with automountServiceAccountToken",
            ) from error


def in_cluster(folder: Path = FOLDER) -> Cluster:
    """Return the API server of the pod that this process runs in; ConfigError outside of one."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise errors.ConfigError(
            "this process runs in no pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT aren't set",
            field="kubernetes",
            remedy="run it in a pod, or leave --kubernetes off",
        )
    host = f"[{host}]" if ":" in host else host
    return Cluster(f"https://{host}:{port}", folder / "token", folder / "ca.crt")
