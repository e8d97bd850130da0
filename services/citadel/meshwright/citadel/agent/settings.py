"""The node agent's settings."""

from __future__ import annotations

import re
from typing import ClassVar

import pydantic
from pydantic import Field

from meshwright.core.settings import ServiceSettings


class AgentSettings(ServiceSettings):
    """What `meshwright-citadel-agent` is started with."""

    part: ClassVar[str] = "citadel-agent"
    summary: ClassVar[str] = "Node agent: gives attested workloads their certificates by SPIFFE Workload API and SDS."

    listen: str = Field(
        "unix:/run/meshwright/agent.sock",
        description="Unix socket (unix:/path) of Workload API and SDS. Without TLS, as SPIFFE has it: the kernel says "
        "who is calling.",
    )
    node: str = Field(
        "",
        description="This node's name, a lower-case DNS name: the agent serves the registrations of this node. Empty: "
        "those that name no node.",
    )

    @pydantic.model_validator(mode="after")
    def _place(self) -> AgentSettings:
        if not self.listen.startswith("unix:"):
            raise ValueError(f"listen: {self.listen} isn't a Unix socket (give unix:/path)")
        if self.citadel is None:
            raise ValueError("citadel: needed: the agent has its workloads' keys certified there (give host:port)")
        if self.insecure_loopback:
            raise ValueError("insecure_loopback: citadel signs for agents with an identity only (give --identity)")
        if self.node and not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", self.node):
            raise ValueError(f"node: {self.node!r} isn't a lower-case DNS name")
        return self
