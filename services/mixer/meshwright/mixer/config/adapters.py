"""Parameters of the adapters that decide requests (denier, listchecker, memquota), and all adapters that run in Rust.

Others are Python and bring their own parameters (meshwright.mixer.adapter.v1).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from meshwright.api.istio.policy.v1beta1 import http_response_pb2
from meshwright.mixer.config.fields import Int32, Int64, Model, Nanoseconds
from meshwright.mixer.config.models import Reference
from meshwright.mixer.config.prometheus import Prometheus
from meshwright.mixer.config.stdio import Stdio
from meshwright.mixer.config.urls import Url

_SECOND = 1_000_000_000


_DETAIL = "type.googleapis.com/istio.policy.v1beta1.DirectHttpResponse"


class DirectResponse(Model):
    """An istio.policy.v1beta1.DirectHttpResponse: what the caller of a denied request gets from its proxy.

    `code` is a number, or a name as in the original (`SeeOther`); without it that of the denial counts.
    """

    code: int = 0
    body: Annotated[str, Field(max_length=65_536)] = ""
    headers: Annotated[dict[str, Annotated[str, Field(max_length=8192)]], Field(max_length=64)] = Field(
        default_factory=dict
    )

    @field_validator("code", mode="before")
    @classmethod
    def _by_name(cls, code: Any) -> Any:
        if isinstance(code, str):
            known = http_response_pb2.HttpStatusCode.DESCRIPTOR.values_by_name
            if code not in known:
                raise ValueError("not a status of HTTP: use a number or a name such as SeeOther")
            return known[code].number
        return code

    @field_validator("code")
    @classmethod
    def _is_final(cls, code: int) -> int:
        if code and not 200 <= code <= 599:
            raise ValueError("not a status of an answer: use 200 to 599")
        return code


def _detail(value: Any) -> Any:
    """Take off the message's type, which says that it is a direct response."""
    if not isinstance(value, dict):
        return value
    kind = value.get("@type")
    if kind != _DETAIL:
        raise ValueError(f"@type: is {kind!r}, must be {_DETAIL}")
    return {name: each for name, each in value.items() if name != "@type"}


class Status(Model):
    """A google.rpc.Status: `code` is a gRPC status code."""

    code: int = 7
    message: Annotated[str, Field(max_length=4096)] = ""
    details: Annotated[list[Annotated[DirectResponse, BeforeValidator(_detail)]], Field(max_length=1)] = Field(
        default_factory=list
    )

    @field_validator("code")
    @classmethod
    def _denies(cls, code: int) -> int:
        if not 1 <= code <= 16:
            raise ValueError("not a code of a denial: use 1 to 16, for example 7 (PERMISSION_DENIED)")
        if code == 14:
            raise ValueError("sidecars take 14 (UNAVAILABLE) for a missing answer: use for example 7")
        return code


class Denier(Model):
    """Denies all that reaches it; callers may keep the answer for `validDuration` and `validUseCount` requests."""

    status: Status = Field(default_factory=Status)
    valid_duration: Nanoseconds = 5 * _SECOND
    valid_use_count: Int32 = 1000


class ListChecker(Model):
    """Looks a value up in a list of strings, addresses and CIDR blocks, or regular expressions.

    With `providerUrl` the list is what an HTTP service says, read again every `refreshInterval` and believed for `ttl`,
    beside the `overrides`.
    """

    provider_url: Url | None = None
    refresh_interval: Annotated[Nanoseconds, Field(ge=_SECOND)] = 60 * _SECOND
    ttl: Annotated[Nanoseconds, Field(ge=_SECOND)] = 300 * _SECOND
    ca_certificates: Annotated[str | None, Field(description="File of authorities; missing: the system's.")] = None
    overrides: Annotated[list[str], Field(max_length=10_000)] = Field(default_factory=list)
    entry_type: Literal["STRINGS", "CASE_INSENSITIVE_STRINGS", "IP_ADDRESSES", "REGEX"] = "STRINGS"
    blacklist: bool = False
    caching_interval: Nanoseconds = 300 * _SECOND
    caching_use_count: Int32 = 10_000


class QuotaOverride(Model):
    """Another limit for requests whose dimensions have these values."""

    dimensions: Annotated[dict[str, str], Field(min_length=1, max_length=64)]
    max_amount: Annotated[Int64, Field(ge=0)]
    valid_duration: Nanoseconds | None = None


class QuotaLimit(Model):
    """`maxAmount` in every window of `validDuration`; a duration of zero holds amounts until they are released."""

    name: Reference
    max_amount: Annotated[Int64, Field(ge=0)]
    valid_duration: Nanoseconds = 0
    overrides: Annotated[list[QuotaOverride], Field(max_length=1000)] = Field(default_factory=list)


class MemQuota(Model):
    """Limits for quota instances, each held by one mixer replica for all; when distributed, by all through a store."""

    quotas: Annotated[list[QuotaLimit], Field(min_length=1, max_length=1000)]
    min_deduplication_duration: Nanoseconds = _SECOND
    distributed: bool = False

    @model_validator(mode="after")
    def _can_be_leased(self) -> Self:
        """A slice is leased for a tenth of its window: there must be one, and it must be longer than calls take."""
        for quota in self.quotas if self.distributed else ():
            windows = [quota.valid_duration, *(over.valid_duration for over in quota.overrides)]
            if any(window is not None and window < _SECOND for window in windows):
                raise ValueError(f"distributed: {quota.name} needs a validDuration of 1s or more, in its overrides too")
        return self


NATIVE: dict[str, tuple[type[Model], frozenset[str]]] = {
    "denier": (Denier, frozenset({"checknothing", "listentry", "authorization", "apikey", "quota"})),
    "listchecker": (ListChecker, frozenset({"listentry"})),
    "memquota": (MemQuota, frozenset({"quota"})),
    "prometheus": (Prometheus, frozenset({"metric"})),
    "stdio": (Stdio, frozenset({"logentry", "metric"})),
}
"""Adapter → its parameters and the templates it takes."""
