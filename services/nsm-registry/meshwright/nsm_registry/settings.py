"""Settings of meshwright-nsm-registry."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from meshwright.core.identity import part_id
from meshwright.core.settings import Addresses, ServiceSettings


class Settings(ServiceSettings):
    """What the registry has beside every service's settings."""

    part: ClassVar[str] = "nsm-registry"
    summary: ClassVar[str] = "The registry of network services and their endpoints."

    listen: str = Field("127.0.0.1:5002", description="Address of the gRPC listener: host:port.")
    managers: Addresses = Field(
        (),
        description="SPIFFE IDs, separated by commas, that may register for others; a trailing * fits any ending. "
        "None: this trust domain's meshwright-nsmgr.",
    )
    default_expiration: float = Field(
        60.0, gt=0, description="Life of an endpoint's registration that asks for none, in seconds."
    )
    max_token_lifetime: float = Field(
        600.0, gt=0, description="Longest life of a registration before it must be refreshed, in seconds."
    )
    name_ownership: float = Field(
        86_400.0,
        ge=0,
        description="How long a name stays its owner's after its registration was over, in seconds: long enough for a "
        "node to come back, short enough that generated names don't pile up.",
    )
    max_services: int = Field(10_000, gt=0, description="Network services that may be registered at once.")
    max_endpoints: int = Field(100_000, gt=0, description="Endpoints that may be registered at once.")

    def manager_ids(self) -> tuple[str, ...]:
        """Return who may register for others."""
        return self.managers or (part_id(self.trust_domain, "nsmgr"),)
