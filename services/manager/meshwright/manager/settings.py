"""What the manager can be told, on the command line and in the environment."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from meshwright.core.settings import Addresses, ServiceSettings


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
    trace_sampling: float = Field(
        100.0, ge=0, le=100, description="Share of the requests that proxies trace, in percent. All by default."
    )
