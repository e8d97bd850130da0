"""citadel's settings, and those of its `bootstrap` command."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import pydantic
from pydantic import Field

from meshwright.citadel.issuer import Lifetimes
from meshwright.citadel.kubernetes.parts import PartsTable, service_names
from meshwright.core import errors
from meshwright.core.kubernetes import Cluster, in_cluster
from meshwright.core.kubernetes.cluster import FOLDER
from meshwright.core.settings import Addresses, ServiceSettings, is_local

_DAY = 24 * 3600


class CitadelSettings(ServiceSettings):
    """What `meshwright-citadel` is started with."""

    part: ClassVar[str] = "citadel"
    summary: ClassVar[str] = "Certificate authority: signs SPIFFE identities for the mesh's parts and workloads."

    config: Path | None = Field(
        None,
        description="Folder of YAML with WorkloadRegistration documents; reloaded on change. None: there are none.",
    )
    listen: str = Field(
        "127.0.0.1:8060",
        description="Address of certificate signing and of the agents' API: host:port, mutual TLS. Port 0: a free one.",
    )
    admin_socket: str | None = Field(
        None,
        description="Unix socket (unix:/path) for one-time tokens, first certificates and registrations; "
        "only this user and root may call. None: off.",
    )
    seal_key: Path | None = Field(
        None,
        description="File with the 32 bytes that seal the CA's key in etcd; `bootstrap` makes one. Required with "
        "--etcd; without etcd a key of this process's own is used.",
    )
    kubernetes: bool = Field(
        False,
        description="Run in a pod: pods with the label meshwright.io/mesh=enabled get their identities, and parts log "
        "in by their service accounts (--login-listen).",
    )
    kubernetes_api: str | None = Field(
        None, description="URL of the API server. None: the one of the pod that this process runs in."
    )
    kubernetes_account: Path = Field(
        FOLDER, description="Folder with the token and ca.crt with which the API server is asked."
    )
    namespace: str = Field("meshwright-system", description="Kubernetes namespace of the platform's own Services.")
    login_listen: str | None = Field(
        None,
        description="Address of the login port (host:port), where parts show their service account's token and get "
        "their first certificate. None: off.",
    )
    login_tls: Path | None = Field(
        None, description="Folder with the login port's cert.pem, key.pem and ca.pem, of the infrastructure CA."
    )
    kubernetes_parts: Addresses = Field(
        (),
        description="Which part a service account is: namespace/account=part,…; several parts of one account as "
        "part+part. Empty: those of the chart in --namespace. Every other account is refused.",
        validate_default=True,
    )
    pods_max_silence_seconds: float = Field(
        1800.0,
        gt=0,
        description="How long citadel signs for pods without hearing from the API server, in seconds: a pod that was "
        "deleted meanwhile keeps its identity for so long, and a shorter outage is noticed by nobody.",
    )
    part_ttl_seconds: int = Field(
        _DAY, ge=10, description="Lifetime of certificates of the platform's own parts, in seconds."
    )
    workload_ttl_seconds: int = Field(
        3600,
        ge=2,
        description="Lifetime of workloads' certificates whose registration names none, in seconds. Short, because "
        "removing a registration ends an identity only when its certificate ends.",
    )
    token_ttl_seconds: int = Field(
        300, ge=10, le=_DAY, description="Lifetime of JWT-SVIDs, in seconds. Short, because nothing takes one back."
    )
    token_issuer: str = Field(
        "",
        description="URL of this trust domain as an OpenID Connect provider (https://…), where the bundle endpoint can "
        "be reached: the iss of JWT-SVIDs. Empty: tokens have none, and there is no discovery document.",
    )
    bundle_listen: str | None = Field(
        None,
        description="Address (host:port) of the bundle endpoint, HTTPS with citadel's own certificate: the trust "
        "domain's bundle, and with --token-issuer OpenID Connect discovery. Everybody may ask. None: off.",
    )
    token_key_ttl_seconds: int = Field(
        7 * _DAY,
        ge=10,
        description="How long a key signs JWT-SVIDs, in seconds. Its successor is published half of that before it "
        "ends, and signs from a quarter on.",
    )
    max_ttl_seconds: int = Field(
        _DAY, ge=10, description="Longest lifetime that may be asked for or registered, in seconds; more is an error."
    )

    @pydantic.model_validator(mode="after")
    def _security(self) -> CitadelSettings:
        """Replace the common rules: citadel signs its own identity, so none has to be given."""
        if self.insecure_loopback and not is_local(self.listen):
            raise ValueError(
                f"insecure_loopback: {self.listen} can be reached from other machines (listen on 127.0.0.1)"
            )
        if self.admin_socket is not None and not self.admin_socket.startswith("unix:"):
            raise ValueError("admin_socket: must be unix:/path: the kernel tells there who is calling")
        if self.etcd and not self.etcd_tls:
            raise ValueError("etcd_tls: needed with --etcd: etcd is only spoken to with mutual TLS")
        if self.etcd and not self.seal_key:
            raise ValueError("seal_key: needed with --etcd: a key in this process only couldn't open the CA again")
        if self.nats and not self.nats_tls:
            raise ValueError("nats_tls: needed with --nats: NATS is only spoken to with mutual TLS")
        if self.token_issuer and not self.token_issuer.startswith("https://"):
            raise ValueError("token_issuer: must be an https:// URL (OpenID Connect Discovery, section 3)")
        if self.login_listen and not (self.kubernetes and self.login_tls):
            raise ValueError("login_listen: needs --kubernetes and --login-tls")
        if self.login_listen and self.login_listen.startswith("unix:"):
            raise ValueError("login_listen: must be host:port")
        try:
            self.parts_table()
        except errors.ConfigError as error:
            raise ValueError(str(error)) from error
        for name in ("part_ttl_seconds", "workload_ttl_seconds"):
            if getattr(self, name) > self.max_ttl_seconds:
                raise ValueError(f"{name}: above max_ttl_seconds ({self.max_ttl_seconds})")
        return self

    def cluster(self) -> Cluster:
        """Return the API server to ask."""
        if self.kubernetes_api is None:
            return in_cluster(self.kubernetes_account)
        return Cluster(self.kubernetes_api, self.kubernetes_account / "token", self.kubernetes_account / "ca.crt")

    def parts_table(self) -> PartsTable:
        """Return which part a service account is."""
        if not self.kubernetes_parts:
            return PartsTable.of_release(self.namespace)
        return PartsTable.parse(self.kubernetes_parts)

    def service_names(self, part: str) -> tuple[str, ...]:
        """Return the DNS names of a part's Service."""
        return service_names(self.namespace, part) if self.kubernetes else ()

    def lifetimes(self) -> Lifetimes:
        """Return the lifetimes as the issuer takes them."""
        return Lifetimes(
            part=timedelta(seconds=self.part_ttl_seconds),
            workload=timedelta(seconds=self.workload_ttl_seconds),
            longest=timedelta(seconds=self.max_ttl_seconds),
            token=timedelta(seconds=self.token_ttl_seconds),
        )
