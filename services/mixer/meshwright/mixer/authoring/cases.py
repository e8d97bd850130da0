"""Tests of policies as people write them: requests, and what must be decided about them.

One decision to know: attributes are typed by the vocabulary, as traffic's are, so a test says `source.ip: 10.0.0.7` and
not which of protobuf's types an address has. What Meshwright's sidecars derive of other attributes is derived here too.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from meshwright.core.errors import ConfigError
from meshwright.mixer.cexl import ValueType
from meshwright.mixer.cexl.durations import parse_duration
from meshwright.mixer.config.fields import Model, Nanoseconds

API_VERSION = "config.meshwright.io/v1alpha1"
KIND = "PolicyTest"

CODES = {
    "OK": 0, "CANCELLED": 1, "UNKNOWN": 2, "INVALID_ARGUMENT": 3, "DEADLINE_EXCEEDED": 4, "NOT_FOUND": 5,
    "ALREADY_EXISTS": 6, "PERMISSION_DENIED": 7, "RESOURCE_EXHAUSTED": 8, "FAILED_PRECONDITION": 9, "ABORTED": 10,
    "OUT_OF_RANGE": 11, "UNIMPLEMENTED": 12, "INTERNAL": 13, "UNAVAILABLE": 14, "DATA_LOSS": 15, "UNAUTHENTICATED": 16,
}  # fmt: skip

Attributes = Mapping[str, Any]


class Expected(Model):
    """What must come out; what isn't given doesn't matter. Of `message` a part is enough, `rule` needs no namespace."""

    decision: Literal["allow", "deny"] | None = None
    code: str | None = None
    message: str | None = None
    rule: str | None = None
    dry_runs: list[str] | None = None
    quotas: dict[str, int] = Field(default_factory=dict)
    request_headers: dict[str, str | None] = Field(default_factory=dict)
    response_headers: dict[str, str | None] = Field(default_factory=dict)
    http_status: int | None = None
    body: str | None = None

    @model_validator(mode="after")
    def _known(self) -> Expected:
        if not self.model_fields_set:
            raise ValueError(
                "empty: expect a decision, code, message, rule, dryRuns, quotas, headers, httpStatus or body"
            )
        if self.code is not None and self.code not in CODES:
            raise ValueError(f"code: unknown: use one of {', '.join(CODES)}")
        return self


Expectation = Annotated[
    Expected, BeforeValidator(lambda given: {"decision": given} if isinstance(given, str) else given)
]
"""The decision alone may be written as `allow` or `deny`."""


class Step(Model):
    """One request, or `repeat` alike, `at` so much time after the case began; every one must come out as expected."""

    request: dict[str, Any] = Field(default_factory=dict)
    quotas: dict[str, int] = Field(default_factory=dict)
    best_effort: bool = False
    at: Nanoseconds | None = None
    repeat: Annotated[int, Field(ge=1, le=100_000)] = 1
    expect: Expectation


class Case(Model):
    """One request or several in turn (`steps`), with limits of their own."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    request: dict[str, Any] = Field(default_factory=dict)
    quotas: dict[str, int] = Field(default_factory=dict)
    best_effort: bool = False
    expect: Expectation | None = None
    steps: Annotated[list[Step], Field(max_length=1000)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_way(self) -> Case:
        if (self.expect is None) == (not self.steps):
            raise ValueError("needs either expect or steps")
        return self

    @property
    def all_steps(self) -> list[Step]:
        """The steps; a case without any is one."""
        if self.expect is None:
            return self.steps
        return [Step(quotas=self.quotas, best_effort=self.best_effort, expect=self.expect)]


class PolicyTest(Model):
    """The spec. `policies` are files beside the test; without them, all that is given to the command."""

    policies: list[str] = Field(default_factory=list)
    request: dict[str, Any] = Field(default_factory=dict)
    cases: Annotated[list[Case], Field(min_length=1, max_length=10_000)]


def merged(*given: Attributes) -> dict[str, Any]:
    """Later ones replace earlier ones; null takes an attribute away."""
    result: dict[str, Any] = {}
    for each in given:
        result |= each
    return {name: value for name, value in result.items() if value is not None}


def derived(attributes: Attributes) -> dict[str, Any]:
    """With what sidecars make of others: the path without its query, the caller's namespace and account."""
    result = dict(attributes)
    if isinstance(path := result.get("request.path"), str):
        result.setdefault("request.url_path", path.partition("?")[0].partition("#")[0])
    parts = str(result.get("source.principal", "")).split("/")
    if len(parts) == 7 and parts[0] == "spiffe:" and (parts[3], parts[5]) == ("ns", "sa"):
        result.setdefault("source.namespace", parts[4])
    return result


def typed(attributes: Attributes, vocabulary: Mapping[str, ValueType]) -> dict[str, Any]:
    """Values as a Check carries them; ConfigError names an attribute that doesn't exist or has another type."""
    return {name: _value(name, value, vocabulary) for name, value in attributes.items()}


def _value(name: str, value: Any, vocabulary: Mapping[str, ValueType]) -> Any:
    kind = vocabulary.get(name)
    if kind is None:
        close = difflib.get_close_matches(name, vocabulary, n=1)
        remedy = f"did you mean {close[0]}?" if close else "declare it in an attributemanifest"
        raise ConfigError("unknown attribute", field=name, remedy=remedy)
    match kind, value:
        case ValueType.BOOL, bool():
            return value
        case ValueType.INT64, int() if not isinstance(value, bool):
            return value
        case ValueType.DOUBLE, int() | float() if not isinstance(value, bool):
            return float(value)
        case ValueType.STRING_MAP, dict() if all(isinstance(each, str) for pair in value.items() for each in pair):
            return value
        case ValueType.DURATION, str() if (nanoseconds := parse_duration(value)) is not None:
            return timedelta(microseconds=nanoseconds / 1000)
        case ValueType.TIMESTAMP, datetime():
            return value if value.tzinfo else value.replace(tzinfo=UTC)
        case ValueType.TIMESTAMP, str():
            try:
                return datetime.fromisoformat(value)
            except ValueError:
                pass
        case ValueType.IP_ADDRESS, str():
            try:
                return ip_address(value).packed
            except ValueError:
                pass
        case ((ValueType.STRING | ValueType.URI | ValueType.DNS_NAME | ValueType.EMAIL_ADDRESS), str()):
            return value
    remedy = "put text in quotation marks" if kind is ValueType.STRING else "write it as that type is written"
    raise ConfigError(f"{value!r} is no {kind.name}", field=name, remedy=remedy)
