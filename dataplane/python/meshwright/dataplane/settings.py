"""Settings of meshwright-forwarder."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import ClassVar, Literal

import pydantic
from pydantic import Field

from meshwright.core.identity import part_id
from meshwright.core.settings import Addresses, ServiceSettings, SocketMode


class Settings(ServiceSettings):
    """What the forwarder has beside every service's settings."""

    part: ClassVar[str] = "forwarder"
    summary: ClassVar[str] = "The dataplane of a node: connects network namespaces."

    listen: str = Field(
        "unix:/run/meshwright/forwarder.sock", description="Unix socket (unix:/path) that the manager calls."
    )
    connect_to: str = Field(
        "unix:/run/meshwright/nsmgr.sock", description="Unix socket (unix:/path) of this node's manager."
    )
    socket_mode: SocketMode = Field(
        "owner",
        description="Who may connect to the Unix socket: owner (this user and root) or everybody, as on a node whose "
        "parts run as other users. Callers show certificates either way.",
    )
    name: str = Field("", description="This forwarder's name. Empty: forwarder-<host name>; it stays over restarts.")
    labels: Addresses = Field(
        ("p2p=true",),
        description="Labels as key=value,key=value that network services select a forwarder by.",
        validate_default=True,
    )
    manager: str = Field("", description="SPIFFE ID of the manager. Empty: this trust domain's meshwright-nsmgr.")
    journal: Path = Field(
        Path("/var/lib/meshwright/forwarder.journal"),
        description="File that keeps the connections over a restart; made with rights for its owner only.",
    )
    user_namespace: Literal["auto", "never"] = Field(
        "auto",
        description="Without network administration rights (CAP_NET_ADMIN, CAP_SYS_ADMIN): auto enters a user "
        "namespace of its own and connects namespaces that belong to it; never reports not ready.",
    )
    sriov: Path | None = Field(
        None,
        description="YAML file of the physical functions whose virtual ones this forwarder gives to connections (see "
        "docs/sriov.md). None: it gives none.",
    )
    dpdk_memory: int = Field(
        128,
        ge=16,
        le=65_536,
        description="Megabytes of huge pages (vm.nr_hugepages) for virtual functions that user space drives, taken "
        "with the first of them.",
    )
    memif_folder: Path | None = Field(
        None,
        description="Folder of the sockets that memif clients connect to. None: memif, beside this one's own socket.",
    )
    workers: int = Field(0, ge=0, le=256, description="Threads that carry packets in user space; 0: one a core.")
    worker_cores: Addresses = Field(
        (),
        description="Cores that they are bound to, as 2,3. Empty: the kernel chooses.",
        validate_default=True,
    )
    busy_poll: bool = Field(
        False, description="They never sleep: the lowest latency, at the price of whole cores. By default they sleep."
    )
    max_token_lifetime: float = Field(600.0, gt=0, description="Longest life of this forwarder's tokens, in seconds.")
    max_connections: int = Field(10_000, gt=0, description="Connections that this forwarder holds at once.")

    @pydantic.model_validator(mode="after")
    def _forms(self) -> Settings:
        for field in ("listen", "connect_to"):
            if not getattr(self, field).startswith("unix:/"):
                raise ValueError(f"{field}: {getattr(self, field)!r} isn't unix:/path, where descriptors pass")
        for label in self.labels:
            if "=" not in label:
                raise ValueError(f"labels: {label!r} isn't key=value")
        for core in self.worker_cores:
            if not core.isdecimal():
                raise ValueError(f"worker_cores: {core!r} isn't a core's number")
        return self

    def own_memif_folder(self) -> Path:
        """Return the folder of memif's sockets."""
        return self.memif_folder or Path(self.listen.removeprefix("unix:")).parent / "memif"

    def own_name(self) -> str:
        """Return this forwarder's name."""
        return self.name or f"forwarder-{socket.gethostname()}"

    def own_labels(self) -> dict[str, str]:
        """Return the labels as a mapping."""
        return {key: value for key, _, value in (label.partition("=") for label in self.labels)}

    def manager_id(self) -> str:
        """Return who may call, and whom this forwarder calls."""
        return self.manager or part_id(self.trust_domain, "nsmgr")
