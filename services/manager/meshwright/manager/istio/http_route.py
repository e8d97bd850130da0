"""The part of a VirtualService that is about requests (HTTPRoute)."""

from __future__ import annotations

import base64
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PlainValidator, model_validator

from meshwright.manager.istio.names import GatewayName, Host, Port
from meshwright.manager.model import grpc_status as grpc
from meshwright.manager.model.document import FieldError, Labels, Name, Strict
from meshwright.manager.model.duration import Duration, Period
from meshwright.manager.model.headers import HeaderName
from meshwright.manager.model.matching import MAX_TEXT, AnyOrMatch, Match
from meshwright.manager.model.pattern import Regex

MAX_MATCHES = 64
RETRY_CONDITIONS = (
    *("5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "envoy-ratelimited", "retriable-4xx"),
    *("refused-stream", "retriable-status-codes", "retriable-headers", "http3-post-connect-failure"),
    *("cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"),
)
"""What Envoy knows by name (router filter, x-envoy-retry-on and x-envoy-retry-grpc-on)."""
ShortText = Annotated[str, Field(min_length=1, max_length=256)]
Uri = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
Weight = Annotated[int, Field(ge=0, le=2**20)]
Texts = Annotated[list[ShortText], Field(max_length=64)]


class PortSelector(Strict):
    """A port, by number."""

    number: Port


class Destination(Strict):
    """A host, or its `subset` that a DestinationRule names."""

    host: Host
    subset: ShortText | None = None
    port: PortSelector | None = None


class Percent(Strict):
    """A share of a hundred; 0.1 is one of a thousand."""

    value: Annotated[float, Field(ge=0, le=100, strict=False)] = 0.0


HeaderValues = Annotated[dict[HeaderName, Annotated[str, Field(max_length=8192)]], Field(max_length=64)]


class HeaderOperations(Strict):
    """What is done to headers."""

    set: HeaderValues = Field(default_factory=dict)
    add: HeaderValues = Field(default_factory=dict)
    remove: Annotated[list[HeaderName], Field(max_length=64)] = Field(default_factory=list)


class Headers(Strict):
    """What is done to the headers of requests and of answers."""

    request: HeaderOperations = HeaderOperations()
    response: HeaderOperations = HeaderOperations()


class HttpRouteDestination(Strict):
    """One that answers, and its share."""

    destination: Destination
    weight: Weight = 0
    headers: Headers = Headers()


class HttpMatchRequest(Strict):
    """Conditions on a request, all of which must hold."""

    name: ShortText | None = None
    uri: Match | None = None
    scheme: Match | None = None
    method: Match | None = None
    authority: Match | None = None
    headers: Annotated[dict[HeaderName, AnyOrMatch], Field(max_length=64)] = Field(default_factory=dict)
    without_headers: Annotated[dict[HeaderName, AnyOrMatch], Field(max_length=64)] = Field(default_factory=dict)
    query_params: Annotated[dict[ShortText, AnyOrMatch], Field(max_length=64)] = Field(default_factory=dict)
    port: Port | None = None
    source_labels: Labels = Field(default_factory=dict)
    source_namespace: Name | None = None
    gateways: Annotated[list[GatewayName], Field(max_length=64)] = Field(default_factory=list)
    ignore_uri_case: bool = False
    stat_prefix: ShortText | None = None

    @model_validator(mode="after")
    def _path(self) -> Self:
        if self.uri is not None and "" in (self.uri.exact, self.uri.prefix):
            raise ValueError("uri compares with nothing: write the path, at least '/'")
        if self.uri is not None and self.uri.regex is not None and self.ignore_uri_case:
            raise ValueError("ignoreUriCase has no effect on a regex: begin it with (?i) instead")
        return self


class HttpRedirect(Strict):
    """The answer is another address; what is left out stays as the request has it."""

    uri: Uri | None = None
    prefix_rewrite: Uri | None = None
    authority: ShortText | None = None
    port: Port | None = None
    derive_port: Literal["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"] | None = None
    scheme: Literal["http", "https"] | None = None
    redirect_code: Literal[301, 302, 303, 307, 308] = 301

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if self.uri is not None and self.prefix_rewrite is not None:
            raise ValueError("has uri and prefixRewrite: write one of them")
        if self.port is not None and self.derive_port is not None:
            raise ValueError("has port and derivePort: write one of them")
        if all(part is None for part in (self.uri, self.prefix_rewrite, self.authority, self.scheme, self.port)):
            raise ValueError("leads back to where the request came from: write uri, authority, scheme or port")
        return self


def _base64(text: str) -> str:
    try:
        base64.b64decode(text, validate=True).decode()
    except ValueError:
        raise ValueError("isn't base64 of UTF-8 text: write the text itself as string") from None
    return text


class HttpBody(Strict):
    """The body of an answer."""

    string: Annotated[str, Field(max_length=4096)] | None = None
    bytes: Annotated[str, Field(max_length=4096), AfterValidator(_base64)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.string is None) == (self.bytes is None):
            raise ValueError("write one of string and bytes (in base64)")
        return self


class HttpDirectResponse(Strict):
    """The answer itself."""

    status: Annotated[int, Field(ge=200, le=599)]
    body: HttpBody | None = None


class Delegate(Strict):
    """A VirtualService without hosts, whose routes stand here."""

    name: Name
    namespace: Name | None = None


class RegexRewrite(Strict):
    """RE2, and what its matches are replaced by (``\\1`` is the first group)."""

    match: Annotated[Regex, Field(min_length=1)]
    rewrite: Annotated[str, Field(max_length=MAX_TEXT)]


class HttpRewrite(Strict):
    """What a request is changed to; `uri` replaces what a prefix matched, else the whole path."""

    uri: Uri | None = None
    authority: ShortText | None = None
    uri_regex_rewrite: RegexRewrite | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.uri is not None and self.uri_regex_rewrite is not None:
            raise ValueError("has uri and uriRegexRewrite: write one of them")
        if self.uri is None and self.authority is None and self.uri_regex_rewrite is None:
            raise ValueError("changes nothing: write uri, uriRegexRewrite or authority")
        return self


def _conditions(text: str) -> str:
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in RETRY_CONDITIONS and not (word.isascii() and word.isdigit() and 100 <= int(word) <= 599):
            raise ValueError(
                f"{word!r} isn't a reason to try again: write some of {', '.join(RETRY_CONDITIONS)}, or statuses"
            )
    return ",".join(words)


class HttpRetry(Strict):
    """How often and when a request is tried again."""

    attempts: Annotated[int, Field(ge=0, le=100)] = 2
    per_try_timeout: Period | None = None
    retry_on: Annotated[str, AfterValidator(_conditions)] | None = None
    retry_remote_localities: bool | None = None
    retry_ignore_previous_hosts: bool | None = None
    backoff: Period | None = None

    @model_validator(mode="after")
    def _none_at_all(self) -> Self:
        if self.attempts == 0 and (self.per_try_timeout is not None or self.retry_on):
            raise ValueError("attempts is 0, so that nothing is tried again: remove perTryTimeout and retryOn")
        return self


Integer = Annotated[int, Field(ge=0, le=100)]


class FaultDelay(Strict):
    """Requests that wait. `percent` is the old, whole form of `percentage`."""

    percent: Integer | None = None
    percentage: Percent | None = None
    fixed_delay: Period | None = None
    exponential_delay: Period | None = None

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.fixed_delay is None) == (self.exponential_delay is None):
            raise ValueError("needs one length: write fixedDelay, or exponentialDelay with its mean")
        return self


class FaultAbort(Strict):
    """Requests that are answered with an error at once."""

    percentage: Percent | None = None
    http_status: Annotated[int, Field(ge=200, le=599)] | None = None
    grpc_status: Annotated[int, PlainValidator(grpc.code)] | None = None
    http2_error: ShortText | None = Field(default=None, alias="http2Error")

    @model_validator(mode="after")
    def _one_error(self) -> Self:
        if self.http2_error is not None:
            raise ValueError("has http2Error, which proxies can't send on purpose: write httpStatus or grpcStatus")
        if (self.http_status is None) == (self.grpc_status is None):
            raise ValueError("needs one error: write httpStatus or grpcStatus")
        return self


class HttpFaultInjection(Strict):
    """A delay, an abort, or both: first the request waits."""

    delay: FaultDelay | None = None
    abort: FaultAbort | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.delay is None and self.abort is None:
            raise ValueError("does nothing: write delay, abort or both")
        return self


class HttpMirrorPolicy(Strict):
    """Where copies go, and of how many requests (left out: of all)."""

    destination: Destination
    percentage: Percent | None = None


class CorsPolicy(Strict):
    """Which other origins' pages may call. `allow_origin` is the old form of `allow_origins`: exact, or ``*``."""

    allow_origin: Texts = Field(default_factory=list)
    allow_origins: Annotated[list[Match], Field(max_length=64)] = Field(default_factory=list)
    allow_methods: Texts = Field(default_factory=list)
    allow_headers: Texts = Field(default_factory=list)
    expose_headers: Texts = Field(default_factory=list)
    max_age: Duration | None = None
    allow_credentials: bool = False
    unmatched_preflights: Literal["UNSPECIFIED", "FORWARD", "IGNORE"] = "UNSPECIFIED"


class HttpRoute(Strict):
    """What happens to the requests that any of `match` fits; none: to all that came so far."""

    name: ShortText | None = None
    match: Annotated[list[HttpMatchRequest], Field(max_length=MAX_MATCHES)] = Field(default_factory=list)
    route: Annotated[list[HttpRouteDestination], Field(max_length=64)] = Field(default_factory=list)
    redirect: HttpRedirect | None = None
    direct_response: HttpDirectResponse | None = None
    delegate: Delegate | None = None
    rewrite: HttpRewrite | None = None
    timeout: Duration | None = None
    retries: HttpRetry | None = None
    fault: HttpFaultInjection | None = None
    mirror: Destination | None = None
    mirror_percent: Integer | None = None
    mirror_percentage: Percent | None = None
    mirrors: Annotated[list[HttpMirrorPolicy], Field(max_length=16)] = Field(default_factory=list)
    cors_policy: CorsPolicy | None = None
    headers: Headers = Headers()

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        ends = {
            "route": self.route,
            "redirect": self.redirect,
            "directResponse": self.direct_response,
            "delegate": self.delegate,
        }
        said = [name for name, value in ends.items() if value]
        if len(said) != 1:
            have = f"has {' and '.join(said)}" if said else "says nothing of where requests go"
            raise ValueError(f"{have}: write one of route, redirect, directResponse and delegate")
        if said[0] != "route":
            beside: dict[str, object] = {
                "rewrite": self.rewrite,
                "timeout": self.timeout,
                "retries": self.retries,
                "mirror": self.mirror,
                "mirrors": self.mirrors,
                "headers": said[0] == "delegate" and self.headers != Headers(),
            }
            beside |= {"fault": self.fault, "corsPolicy": self.cors_policy} if said[0] == "delegate" else {}
            useless = [name for name, value in beside.items() if value]
            if useless:
                raise ValueError(f"has {useless[0]} beside {said[0]}, which sends no request on: remove it")
        if self.mirror is not None and self.mirrors:
            raise ValueError("has mirror and mirrors: write mirrors for all of them")
        if self.mirror is None and (self.mirror_percent is not None or self.mirror_percentage is not None):
            raise ValueError("has a mirror's percentage and no mirror: write mirror, or mirrors with their percentages")
        return self


def shares(route: list[HttpRouteDestination], field: str) -> None:
    """Raise FieldError when weights lead nowhere."""
    if len(route) > 1 and not any(entry.weight for entry in route):
        raise FieldError(field, "all weights are 0, so that no request could go anywhere: give at least one a weight")
