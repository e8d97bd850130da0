"""What `meshwright up` can be told; the command line builds it, nothing else reads options or the environment."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from meshwright.core import logs

PORTS = 40  # consecutive ports that a run with --base-port may use, the demo's included


def default_data() -> Path:
    """Return the data directory of this user: $XDG_STATE_HOME/meshwright, by default ~/.local/state/meshwright."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "meshwright"


class UpSettings(BaseModel):
    """One run of the platform on this machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path = Field(default_factory=default_data, description="Data directory: state, keys, sockets and logs.")
    mixers: int = Field(1, ge=1, le=8, description="Replicas of mixer.")
    base_port: int | None = Field(
        None, ge=1024, le=65535 - PORTS, description="First of 40 consecutive ports; none: the well-known ones."
    )
    trust_domain: str = Field("mesh.local", description="SPIFFE trust domain.")
    otlp_endpoint: str | None = Field(
        None,
        description="Your own OTLP gRPC endpoint, http://host:port or https://host:port; all telemetry goes there too.",
    )
    log_level: str = Field("info", description="Least severe level that the parts log: debug, info, warning or error.")
    start_seconds: float = Field(60.0, gt=0, description="How long all parts may take to become healthy.")

    @field_validator("trust_domain")
    @classmethod
    def _trust_domain(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z0-9._-]{1,255}", value):
            raise ValueError("a trust domain has 1-255 of a-z 0-9 . - _")
        return value

    @field_validator("log_level")
    @classmethod
    def _log_level(cls, value: str) -> str:
        if value not in logs.LEVELS:
            raise ValueError(f"one of {', '.join(logs.LEVELS)}")
        return value
