"""Mixer's settings; the common ones are in meshwright.core.settings."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from meshwright.core.settings import ServiceSettings


class MixerSettings(ServiceSettings):
    """Settings of one mixer replica."""

    part: ClassVar[str] = "mixer"
    summary: ClassVar[str] = "Policy, quota and telemetry: istio.mixer.v1, ext_authz, rate limits, access logs, OTLP."

    listen: str = Field("127.0.0.1:9091", description="Address of the gRPC listener: host:port or unix:/path.")
    replica: str | None = Field(
        None, description="This replica's name, unique among all. None: a random one, new at each start."
    )
    advertise: str | None = Field(
        None, description="host:port under which other replicas reach this one. None: the address it listens on."
    )
    replica_ttl: float = Field(
        5.0,
        ge=1,
        le=300,
        description="Seconds after which a replica that died stops owning quotas; the store's lease. "
        "Short, because its quotas aren't held across replicas meanwhile.",
    )
    global_namespace: str = Field(
        "meshwright-system",
        min_length=1,
        max_length=63,
        description="Namespace whose rules apply to every request; the original's configDefaultNamespace.",
    )
    max_validity: float = Field(
        1.0,
        ge=0,
        le=3600,
        description="Seconds for which callers may keep an answer, at most: a new rule acts everywhere within "
        "this time. Shorter costs calls, longer is what handlers say. 0: no limit.",
    )
    record_bytes: int = Field(
        512 << 20,
        ge=1 << 20,
        description="Bytes of records that the work queue keeps while adapters can't take them; "
        "when it is full, records wait in mixer (64 MiB), then reports are refused and proxies keep their access logs.",
    )
    record_replicas: int = Field(
        1,
        ge=1,
        le=5,
        description="NATS servers that keep each record: 3 survive the loss of one, and a power cut without "
        "`sync_interval: always`.",
    )
    batch_records: int = Field(
        512, ge=1, le=10_000, description="Records that adapters get at once, at most: one export's size."
    )
    batch_seconds: float = Field(
        0.2, ge=0.001, le=10, description="Seconds that a record waits for others to fill its batch."
    )
    rest_seconds: float = Field(
        5.0,
        ge=0.01,
        le=300,
        description="Seconds that an adapter which refused a batch rests at the most before another batch tries it: "
        "longer spares a backend that is ill, shorter finds one sooner that is well again.",
    )
    rate_limit_headers: bool = Field(
        False,
        description="Whether the rate limit service's answers carry RateLimit-Limit, -Remaining and -Reset for the "
        "response; off, because Envoy can write its own (enable_x_ratelimit_headers).",
    )
    drain_seconds: float = Field(
        5.0, ge=0, le=60, description="Seconds that a stopping mixer takes to store and export what it still has."
    )

    @model_validator(mode="after")
    def _has_configuration(self) -> Self:
        if self.config is None and not self.etcd:
            raise ValueError("config: no rules to serve (give --config FOLDER, or --etcd for the manager's store)")
        return self
