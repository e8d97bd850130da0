"""Settings of meshwright-nsmgr."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import ClassVar, Literal

import pydantic
from pydantic import Field

from meshwright.core.identity import part_id
from meshwright.core.settings import Addresses, ServiceSettings, SocketMode
from meshwright.nsm import urls


class Settings(ServiceSettings):
    """What a node's manager has beside every service's settings."""

    part: ClassVar[str] = "nsmgr"
    summary: ClassVar[str] = "The network service manager of a node."

    listen: str = Field("127.0.0.1:5001", description="Address of the gRPC listener for other nodes: host:port.")
    socket: str = Field(
        "unix:/run/meshwright/nsmgr.sock",
        description="Unix socket (unix:/path) for this node's clients, endpoints and forwarder; descriptors pass here.",
    )
    socket_mode: SocketMode = Field(
        "owner",
        description="Who may connect to the Unix socket: owner (this user and root) or everybody, as on a node whose "
        "clients run as other users. Callers show certificates either way.",
    )
    name: str = Field("", description="This manager's name in the paths of connections. Empty: nsmgr-<host name>.")
    public_url: str = Field(
        "", description="URL that other nodes reach this manager by, tcp://host:port. Empty: from --listen."
    )
    registry: str = Field("127.0.0.1:5002", description="Address of nsm-registry: host:port.")
    mixer: Addresses = Field(
        (),
        description="Mixer replicas as host:port,host:port that decide who may have a connection; the first that "
        "answers counts. None: every member of the trust domain may.",
        validate_default=True,
    )
    on_policy_outage: Literal["allow", "deny"] = Field(
        "deny", description="What happens to requests while no mixer answers: allow or deny."
    )
    forwarders: Addresses = Field(
        (),
        description="SPIFFE IDs, separated by commas, that may register as forwarder and so get the namespaces of "
        "clients; a trailing * fits any ending. None: this trust domain's meshwright-forwarder.",
        validate_default=True,
    )
    journal: Path = Field(
        Path("/var/lib/meshwright/nsmgr.journal"),
        description="File that keeps the connections over a restart; made with rights for its owner only.",
    )
    max_token_lifetime: float = Field(
        600.0,
        gt=0,
        description="Longest life of this manager's tokens, in seconds; clients refresh at a third of the shortest.",
    )
    max_connections: int = Field(10_000, gt=0, description="Connections that this manager holds at once.")
    max_endpoints: int = Field(10_000, gt=0, description="Endpoints that may be registered through this manager.")

    @pydantic.model_validator(mode="after")
    def _addresses(self) -> Settings:
        if not self.socket.startswith("unix:/"):
            raise ValueError(f"socket: {self.socket!r} isn't unix:/path")
        return self

    def own_name(self) -> str:
        """Return this manager's name in paths."""
        return self.name or f"nsmgr-{socket.gethostname()}"

    def own_url(self, address: str) -> str:
        """Return the URL that endpoints of this node are registered with; `address` is the bound one."""
        return self.public_url or urls.of_address(address)

    def forwarder_ids(self) -> tuple[str, ...]:
        """Return who may register as forwarder."""
        return self.forwarders or (part_id(self.trust_domain, "forwarder"),)
