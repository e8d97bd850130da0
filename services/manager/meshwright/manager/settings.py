"""What the manager can be told, on the command line and in the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, Literal

import pydantic
from pydantic import Field

from meshwright.core.settings import Addresses, ServiceSettings

_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


class ManagerSettings(ServiceSettings):
    """The manager: takes configuration, keeps it, and distributes it to proxies."""

    part: ClassVar[str] = "manager"
    summary: ClassVar[str] = "Configuration, discovery and distribution: the configuration API and xDS (ADS)."

    listen: str = Field(
        "127.0.0.1:15012",
        description="Address of the gRPC listener: host:port or unix:/path. Port 0 takes a free one.",
    )
    mixer: Addresses = Field(
        (),
        description="Replicas of mixer as host:port,host:port: any of them is asked to validate rules, handlers and "
        "instances. None: such objects are only taken with --accept-unvalidated.",
        validate_default=True,
    )
    advertise: str | None = Field(
        None, description="host:port at which other replicas of the manager reach this one. None: the listener's own."
    )
    rest: str | None = Field(
        None,
        description="host:port of the configuration API by HTTP and JSON, for the administrator's identity. None: off.",
    )
    history_revisions: int = Field(
        1_000,
        ge=1,
        le=100_000,
        description="Of how many revisions the history is kept, at least: what each changed, who, when and "
        "why. Each keeps a copy of what it changed in the store.",
    )
    history_days: float = Field(
        90.0, gt=0, le=3_650, description="For how long the history is kept at most, in days; what is in force stays."
    )
    kubernetes: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Whether to follow a Kubernetes cluster: its Services, Pods and custom resources. auto: in a pod "
        "with a service account's token, or where --kubeconfig names a cluster.",
    )
    kubeconfig: Path | None = Field(
        None,
        description="kubeconfig file whose current context names the cluster. None: that of the pod this runs in.",
    )
    outbound_plaintext: bool = Field(
        True,
        description="Let proxies call pods of the cluster that have no proxy, in plain text. Off: such pods are no "
        "endpoints of any service for them.",
    )
    trace_sampling: float = Field(
        100.0, ge=0, le=100, description="Share of the requests that proxies trace, in percent. All by default."
    )
    access: Literal["strict", "permissive"] = Field(
        "permissive",
        description="Who may call a workload that no grant (SMI's TrafficTarget, an AuthorizationPolicy) is about. "
        "strict: nobody, as SMI reads. permissive: everybody in the mesh.",
    )
    inbound_plaintext: bool = Field(
        False,
        description="Let callers without a certificate reach injected pods, in plain text: for the time in which a "
        "cluster's callers get their sidecars. Off: mutual TLS only, and no port that no Service names.",
    )
    outbound_unknown: Literal["pass", "refuse"] = Field(
        "pass", description="What becomes of injected pods' connections to addresses that no Service of the mesh has."
    )
    webhook: str | None = Field(
        None,
        description="host:port of the webhooks that give pods their sidecar and convert objects between the versions "
        "of SMI's kinds, by HTTPS with this service's certificate. None: off.",
    )
    webhook_configuration: str | None = Field(
        None,
        description="Name of the MutatingWebhookConfiguration whose caBundle is kept right, with the rights of this "
        "pod's service account. None: somebody else keeps it.",
    )
    conversion: bool = Field(
        False,
        description="Whether the caBundle of the definitions whose objects the webhook converts is kept right, with "
        "the rights of this pod's service account.",
    )
    sidecar_image: str = Field("meshwright/sidecar:latest", description="Image of the sidecar that pods are given.")
    sidecar_pull_policy: Literal["IfNotPresent", "Always", "Never"] = Field(
        "IfNotPresent", description="When nodes pull the sidecar's image."
    )
    platform_namespace: str = Field(
        "meshwright-system", description="Namespace in which injected pods find the platform's Services."
    )

    @pydantic.model_validator(mode="after")
    def _cluster(self) -> ManagerSettings:
        if self.config is not None and self.kubernetes == "on":
            raise ValueError(
                "kubernetes: a folder of files and a cluster can't both be the configuration (leave out --config, or "
                "give --kubernetes off)"
            )
        return self

    @property
    def follows_cluster(self) -> bool:
        """Whether a cluster is to be followed."""
        if self.kubernetes == "auto":
            if self.config is not None:
                return False
            return self.kubeconfig is not None or _in_pod()
        return self.kubernetes == "on"


def _in_pod() -> bool:
    """Return whether this process runs in a pod that has an account with the API server."""
    return "KUBERNETES_SERVICE_HOST" in os.environ and _TOKEN.exists()
