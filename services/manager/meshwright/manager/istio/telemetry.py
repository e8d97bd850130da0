"""telemetry.istio.io/v1 Telemetry: what proxies say of the requests they carry: spans, access logs, metrics."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from meshwright.manager.istio.http_route import ShortText
from meshwright.manager.istio.selector import Selecting
from meshwright.manager.model.document import Document, FieldError, Strict
from meshwright.manager.model.headers import HeaderName

Mode = Literal["CLIENT_AND_SERVER", "CLIENT", "SERVER"]


class Provider(Strict):
    """Who is told."""

    name: ShortText


Providers = Annotated[list[Provider], Field(max_length=8)]


class FixedText(Strict):
    """A text."""

    value: Annotated[str, Field(min_length=1, max_length=1024)]


class Environment(Strict):
    """A variable of the proxy's environment."""

    name: ShortText
    default_value: Annotated[str, Field(max_length=1024)] = ""


class RequestHeader(Strict):
    """A header of the request."""

    name: HeaderName
    default_value: Annotated[str, Field(max_length=1024)] = ""


class CustomTag(Strict):
    """A tag of spans: one of these."""

    literal: FixedText | None = None
    environment: Environment | None = None
    header: RequestHeader | None = None
    formatter: Any = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.formatter is not None:
            raise ValueError("formatter isn't known to this mesh: write literal, environment or header")
        if sum(part is not None for part in (self.literal, self.environment, self.header)) != 1:
            raise ValueError("needs one source: write literal, environment or header")
        return self


class TracingMatch(Strict):
    """In which direction."""

    mode: Mode = "CLIENT_AND_SERVER"


class Tracing(Strict):
    """Spans."""

    match: TracingMatch | None = None
    providers: Providers = Field(default_factory=list)
    random_sampling_percentage: Annotated[float, Field(ge=0, le=100, strict=False)] | None = None
    disable_span_reporting: bool | None = None
    custom_tags: Annotated[dict[ShortText, CustomTag], Field(max_length=64)] = Field(default_factory=dict)
    use_request_id_for_trace_sampling: bool | None = None
    enable_istio_tags: bool | None = None
    disable_context_propagation: bool | None = None


class MetricSelector(Strict):
    """Which metrics."""

    metric: ShortText | None = None
    custom_metric: ShortText | None = None
    mode: Mode = "CLIENT_AND_SERVER"


class MetricsOverride(Strict):
    """What is different for some metrics."""

    match: MetricSelector | None = None
    disabled: bool | None = None
    tag_overrides: dict[str, Any] = Field(default_factory=dict)


class Metrics(Strict):
    """Counters and histograms, which mixer makes of the reports."""

    providers: Providers = Field(default_factory=list)
    overrides: Annotated[list[MetricsOverride], Field(max_length=64)] = Field(default_factory=list)
    reporting_interval: str | None = None


class LogSelector(Strict):
    """In which direction."""

    mode: Mode = "CLIENT_AND_SERVER"


class LogFilter(Strict):
    """An expression (CEL) over a request that says whether it is logged."""

    expression: Annotated[str, Field(min_length=1, max_length=4096)]


class AccessLogging(Strict):
    """A line for each request."""

    match: LogSelector | None = None
    providers: Providers = Field(default_factory=list)
    disabled: bool | None = None
    filter: LogFilter | None = None


class TelemetrySpec(Selecting):
    """What holds for the selected workloads."""

    tracing: Annotated[list[Tracing], Field(max_length=8)] = Field(default_factory=list)
    metrics: Annotated[list[Metrics], Field(max_length=8)] = Field(default_factory=list)
    access_logging: Annotated[list[AccessLogging], Field(max_length=8)] = Field(default_factory=list)


class Telemetry(Document):
    """What proxies say of requests."""

    spec: TelemetrySpec = TelemetrySpec()

    @model_validator(mode="after")
    def _clear(self) -> Self:
        modes = [entry.match.mode if entry.match else "CLIENT_AND_SERVER" for entry in self.spec.tracing]
        if len(modes) != len(set(modes)):
            raise FieldError("spec.tracing", "two entries are for the same direction: make them one")
        return self
