"""Settings of the collector; only this module reads its environment."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from meshwright.core.settings import ServiceSettings


class CollectorSettings(ServiceSettings):
    """An OTLP gRPC collector that keeps the last traces, logs and metric points in memory."""

    part: ClassVar[str] = "collector"
    summary: ClassVar[str] = __doc__ or ""

    listen: str = Field("127.0.0.1:4317", description="Address of OTLP and of the query API: host:port or unix:/path.")
    max_traces: int = Field(5000, ge=1, description="Traces kept; about 10 KB each in a mesh of three services.")
    max_logs: int = Field(50_000, ge=1, description="Log records kept; about 1 KB each.")
    max_points: int = Field(20_000, ge=1, description="Metric streams kept, one point each; about 1 KB each.")
    otlp_endpoint: str | None = Field(
        None,
        description="The user's own OTLP gRPC endpoint, http://host:port or https://host:port. None: no forwarding.",
    )
