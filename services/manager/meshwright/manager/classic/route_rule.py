"""config.istio.io/v1alpha2 RouteRule: where some of the requests or connections to a service go.

Of the rules of one destination that fit a request the one with the highest `precedence` decides; of equal ones the
first by name. What no rule fits goes to the service, as if there were none.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from meshwright.manager.classic.fault import HttpFault
from meshwright.manager.classic.match import MatchCondition, no_labels
from meshwright.manager.classic.message import MAX_RULES, IstioService, Message
from meshwright.manager.model.document import Document, FieldError, Labels
from meshwright.manager.model.duration import Period
from meshwright.manager.model.headers import HeaderName, header_name
from meshwright.manager.model.matching import MAX_TEXT

MAX_PRECEDENCE = 2**31 - 1
_NO_FILTERS = "is for filters of one's own, which this mesh doesn't load: remove it"


class DestinationWeight(Message):
    """Who answers, in percent of the rule's requests; no destination means the rule's own."""

    destination: IstioService | None = None
    labels: Labels = Field(default_factory=dict)
    weight: Annotated[int, Field(ge=0, le=100)] = 0

    @model_validator(mode="after")
    def _labels_once(self) -> Self:
        if self.destination is not None and self.destination.labels:
            raise ValueError("has labels inside its destination: write them beside it, as labels")
        return self


Authority = Annotated[str, Field(min_length=1, max_length=256)]
Uri = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]


class Redirect(Message):
    """The answer is 301 with this address; what is left out stays as the request has it."""

    uri: Uri | None = None
    authority: Authority | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.uri is None and self.authority is None:
            raise ValueError("leads back to where the request came from: write uri, authority or both")
        return self


class Rewrite(Message):
    """What the request is changed to: `uri` replaces what a prefix matched, else the whole path."""

    uri: Uri | None = None
    authority: Authority | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.uri is None and self.authority is None:
            raise ValueError("changes nothing: write uri, authority or both")
        return self


class SimpleTimeout(Message):
    """How long an answer may take, repetitions included."""

    timeout: Period
    override_header_name: HeaderName | None = None


class HttpTimeout(Message):
    """One way to say it."""

    simple_timeout: SimpleTimeout | None = None
    custom: Any = None

    @model_validator(mode="after")
    def _simple(self) -> Self:
        if self.custom is not None:
            raise ValueError(f"custom {_NO_FILTERS}, and write simpleTimeout")
        if self.simple_timeout is None:
            raise ValueError("says nothing: write simpleTimeout")
        return self


class SimpleRetry(Message):
    """How often a request is tried again."""

    attempts: Annotated[int, Field(ge=0, le=100)]
    per_try_timeout: Period | None = None
    override_header_name: HeaderName | None = None


class HttpRetry(Message):
    """One way to say it."""

    simple_retry: SimpleRetry | None = None
    custom: Any = None

    @model_validator(mode="after")
    def _simple(self) -> Self:
        if self.custom is not None:
            raise ValueError(f"custom {_NO_FILTERS}, and write simpleRetry")
        if self.simple_retry is None:
            raise ValueError("says nothing: write simpleRetry")
        return self


Texts = Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=64)]


class CorsPolicy(Message):
    """Which other origins' pages may call; ``*`` in `allow_origin` means every one."""

    allow_origin: Texts = Field(default_factory=list)
    allow_methods: Texts = Field(default_factory=list)
    allow_headers: Texts = Field(default_factory=list)
    expose_headers: Texts = Field(default_factory=list)
    max_age: Period | None = None
    allow_credentials: bool = False


def _append_headers(headers: dict[str, str]) -> dict[str, str]:
    for name in headers:
        header_name(name)
    return headers


class RouteRuleSpec(Message):
    """What is done with the requests of `destination` that `match` fits."""

    destination: IstioService
    precedence: Annotated[int, Field(ge=-MAX_PRECEDENCE - 1, le=MAX_PRECEDENCE)] = 0
    match: MatchCondition | None = None
    route: Annotated[list[DestinationWeight], Field(max_length=MAX_RULES)] = Field(default_factory=list)
    redirect: Redirect | None = None
    rewrite: Rewrite | None = None
    websocket_upgrade: bool | None = None
    http_req_timeout: HttpTimeout | None = None
    http_req_retries: HttpRetry | None = None
    http_fault: HttpFault | None = None
    l4_fault: Any = None
    mirror: IstioService | None = None
    cors_policy: CorsPolicy | None = None
    append_headers: Annotated[
        dict[str, Annotated[str, Field(max_length=MAX_TEXT)]], Field(max_length=64), AfterValidator(_append_headers)
    ] = Field(default_factory=dict)

    @property
    def http_only(self) -> tuple[str, ...]:
        """Return the fields in use that connections don't have."""
        said = {
            "redirect": self.redirect,
            "rewrite": self.rewrite,
            "websocketUpgrade": self.websocket_upgrade,
            "httpReqTimeout": self.http_req_timeout,
            "httpReqRetries": self.http_req_retries,
            "httpFault": self.http_fault,
            "mirror": self.mirror,
            "corsPolicy": self.cors_policy,
            "appendHeaders": self.append_headers,
        }
        return tuple(name for name, value in said.items() if value)


def weights(route: list[DestinationWeight]) -> None:
    """Raise FieldError unless the weights of several entries are shares of a hundred."""
    if len(route) == 1 and route[0].weight in (0, 100):
        return
    total = sum(entry.weight for entry in route)
    if total != 100:
        raise FieldError("spec.route", f"the weights add up to {total}: they are percents, make them 100 together")


class RouteRule(Document):
    """Where some of the requests to a service go."""

    spec: RouteRuleSpec

    @model_validator(mode="after")
    def _sense(self) -> Self:
        spec = self.spec
        no_labels("spec.destination.labels", spec.destination.labels)
        if spec.l4_fault is not None:
            raise FieldError(
                "spec.l4Fault",
                "proxies can't slow down or end some of the connections on purpose: write httpFault where the service "
                "speaks HTTP, or remove it",
            )
        if spec.redirect is not None:
            others = {
                "route": spec.route,
                "httpFault": spec.http_fault,
                "rewrite": spec.rewrite,
                "websocketUpgrade": spec.websocket_upgrade,
            }
            said = [name for name, value in others.items() if value]
            if said:
                raise FieldError(
                    f"spec.{said[0]}",
                    f"the rule has redirect and {' and '.join(said)}: a redirected request goes nowhere else, keep one",
                )
        if spec.route:
            weights(spec.route)
        if spec.match is not None and spec.match.tcp is not None and spec.http_only:
            raise FieldError(
                f"spec.{spec.http_only[0]}",
                "the rule matches connections (match.tcp), which have no requests: remove it",
            )
        return self
