"""Parameters of the adapters that decide requests (denier, listchecker, memquota), which run in Rust.

Adapters that take reports are Python and bring their own parameters (meshwright.mixer.adapter.v1).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from meshwright.mixer.config.fields import Int32, Int64, Model, Nanoseconds
from meshwright.mixer.config.models import Reference

_SECOND = 1_000_000_000


class Status(Model):
    """A google.rpc.Status: `code` is a gRPC status code."""

    code: int = 7
    message: Annotated[str, Field(max_length=4096)] = ""

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
    """Looks a value up in a list of strings, addresses and CIDR blocks, or regular expressions."""

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
    """Limits for quota instances, held across all mixer replicas."""

    quotas: Annotated[list[QuotaLimit], Field(min_length=1, max_length=1000)]
    min_deduplication_duration: Nanoseconds = _SECOND


NATIVE: dict[str, tuple[type[Model], frozenset[str]]] = {
    "denier": (Denier, frozenset({"checknothing", "listentry"})),
    "listchecker": (ListChecker, frozenset({"listentry"})),
    "memquota": (MemQuota, frozenset({"quota"})),
}
"""Adapter → its parameters and the templates it takes."""
