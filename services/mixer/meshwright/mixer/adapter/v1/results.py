"""What handlers answer. Durations and uses say how long the caller may keep an answer without asking again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import IntEnum
from typing import Self

from meshwright.mixer.adapter.v1.values import Value


class Code(IntEnum):
    """Codes of google.rpc.Status."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectResponse:
    """What the proxy answers to a denied request, in place of its own page."""

    code: int = 403
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """A decision. `output` is for templates with output: rules read it as `ACTION.output.FIELD`.

    Denials with the codes INTERNAL and UNAVAILABLE reach the caller as UNKNOWN: callers take those for a failure of
    mixer's, and might let the request pass.
    `valid_use_count` 0 means that the answer isn't kept, a negative one that there is no limit.
    """

    code: Code = Code.OK
    message: str = ""
    valid_duration: timedelta = timedelta(seconds=1)
    valid_use_count: int = 1000
    direct_response: DirectResponse | None = None
    output: Mapping[str, Value] = field(default_factory=dict)

    @classmethod
    def allow(cls, output: Mapping[str, Value] | None = None) -> Self:
        """Let the request pass."""
        return cls(output=output or {})

    @classmethod
    def deny(
        cls, message: str, code: Code = Code.PERMISSION_DENIED, direct_response: DirectResponse | None = None
    ) -> Self:
        """Refuse the request; the caller sees `message`."""
        return cls(code=code, message=message, direct_response=direct_response)


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """How much of a quota is asked for.

    A negative `amount` releases. With `best_effort` what is left is granted when it is less. The same
    `deduplication_id` again is the same charge again, sent once more; empty means that it can't be told.
    """

    amount: int
    best_effort: bool = False
    deduplication_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaResult:
    """How much was granted: 0 says that nothing is left."""

    granted: int
    valid_duration: timedelta = timedelta(seconds=1)
