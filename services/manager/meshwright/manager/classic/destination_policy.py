"""config.istio.io/v1alpha2 DestinationPolicy: how connections to a service, or to some of its workloads, are made."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from meshwright.manager.classic.message import Caller, IstioService, Message
from meshwright.manager.model.document import Document
from meshwright.manager.model.duration import Period

_NO_OTHERS = "is for programs of one's own, which this mesh doesn't load: remove it"

Count = Annotated[int, Field(ge=0, le=2**31 - 1)]


class LoadBalancing(Message):
    """How an instance is chosen; `LEAST_CONN` counts the requests under way."""

    name: Literal["ROUND_ROBIN", "LEAST_CONN", "RANDOM"] | None = None
    custom: Any = None

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.custom is not None:
            raise ValueError(f"custom {_NO_OTHERS}, and write name")
        if self.name is None:
            raise ValueError("says nothing: write name with ROUND_ROBIN, LEAST_CONN or RANDOM")
        return self


class SimpleCircuitBreaker(Message):
    """Limits of one proxy, and when an instance is left out; 0 means as if nothing was said."""

    max_connections: Count = 0
    http_max_pending_requests: Count = 0
    http_max_requests: Count = 0
    sleep_window: Period | None = None
    http_consecutive_errors: Count = 0
    http_detection_interval: Period | None = None
    http_max_requests_per_connection: Count = 0
    http_max_ejection_percent: Annotated[int, Field(ge=0, le=100)] = 0


class CircuitBreaker(Message):
    """One way to say it."""

    simple_cb: SimpleCircuitBreaker | None = None
    custom: Any = None

    @model_validator(mode="after")
    def _simple(self) -> Self:
        if self.custom is not None:
            raise ValueError(f"custom {_NO_OTHERS}, and write simpleCb")
        if self.simple_cb is None:
            raise ValueError("says nothing: write simpleCb")
        return self


class DestinationPolicySpec(Message):
    """`destination` with labels: for those workloads only. `source`: for these callers only."""

    destination: IstioService
    source: Caller | None = None
    load_balancing: LoadBalancing | None = None
    circuit_breaker: CircuitBreaker | None = None
    custom: Any = None

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.custom is not None:
            raise ValueError(f"custom {_NO_OTHERS}")
        return self


class DestinationPolicy(Document):
    """How connections to a service are made."""

    spec: DestinationPolicySpec
