"""The documents of config.istio.io/v1alpha2 that make a policy: rule, handler, instance and what they build on."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from meshwright.mixer.cexl.lexer import is_name
from meshwright.mixer.cexl.types import ValueType
from meshwright.mixer.config.fields import ExpressionText, Int64, Model, Nanoseconds, OptionalExpression

Reference = Annotated[str, Field(min_length=1, max_length=512)]
"""`name`, `name.namespace` or `name.kind.namespace`."""

Mode = Literal["enforce", "dry-run"]
"""Whether a rule's decisions count, or are only recorded."""

Language = Literal["CEXL", "CEL"]
"""In which language a document's expressions are written."""

Parameters = Annotated[dict[str, Any], BeforeValidator(lambda given: {} if given is None else given)]
"""`params:` with nothing behind it is as good as none."""


class Action(Model):
    """What a matching rule does: gives instances to a handler; header operations find the output by `name`."""

    handler: Reference
    instances: Annotated[list[Reference], Field(min_length=1, max_length=64)]
    name: Annotated[str, Field(max_length=256)] = ""


class HeaderOperation(Model):
    """A change of the request's or the response's headers; `values` are expressions of type STRING."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    values: Annotated[list[ExpressionText], Field(max_length=64)] = Field(default_factory=list)
    operation: Literal["REPLACE", "REMOVE", "APPEND"] = "REPLACE"


class Fraction(Model):
    """`numerator` of a hundred, or of ten thousand."""

    numerator: Annotated[int, Field(ge=0, lt=2**32)] = 0
    denominator: Literal["HUNDRED", "TEN_THOUSAND"] = "HUNDRED"

    @property
    def whole(self) -> int:
        """The denominator as a number."""
        return 100 if self.denominator == "HUNDRED" else 10_000


class RandomSampling(Model):
    """`percentSampled` of the requests; `attributeExpression` (INT64 or DOUBLE) replaces its numerator."""

    attribute_expression: OptionalExpression = None
    percent_sampled: Fraction = Field(default_factory=Fraction)
    use_independent_randomness: bool = False


class RateLimitSampling(Model):
    """The first `maxUnsampledEntries` of every `samplingDuration`, then one of `samplingRate`."""

    sampling_duration: Nanoseconds
    max_unsampled_entries: Annotated[Int64, Field(ge=0)] = 0
    sampling_rate: Annotated[Int64, Field(ge=1)] = 1


class Sampling(Model):
    """Which of the requests that match a rule its actions are done for; both ways must pick it."""

    random: RandomSampling | None = None
    rate_limit: RateLimitSampling | None = None


class Rule(Model):
    """When `match` is true (or missing), do all actions and header operations."""

    match: OptionalExpression = None
    actions: Annotated[list[Action], Field(max_length=64)] = Field(default_factory=list)
    request_header_operations: Annotated[list[HeaderOperation], Field(max_length=64)] = Field(default_factory=list)
    response_header_operations: Annotated[list[HeaderOperation], Field(max_length=64)] = Field(default_factory=list)
    sampling: Sampling | None = None
    language: Language = "CEXL"
    mode: Mode = "enforce"


class OAuth(Model):
    """Client credentials; `clientSecret` names a file."""

    client_id: str = ""
    client_secret: str = ""
    token_url: str = ""
    scopes: list[str] = Field(default_factory=list)
    endpoint_params: dict[str, str] = Field(default_factory=dict)


class Tls(Model):
    """TLS to an adapter, with a token from a file or by OAuth, in the header that it asks for. All paths are files'."""

    ca_certificates: str = ""
    token_path: str | None = None
    oauth: OAuth | None = None
    auth_header: Literal["PLAIN", "BEARER"] | None = None
    custom_header: str | None = None
    server_name: str = ""

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if self.token_path is not None and self.oauth is not None:
            raise ValueError("tokenPath and oauth: keep one of them")
        if self.auth_header is not None and self.custom_header is not None:
            raise ValueError("authHeader and customHeader: keep one of them")
        return self


class Mutual(Model):
    """Mutual TLS to an adapter; the paths are files'. Without any, mixer's own identity serves."""

    private_key: str = ""
    client_certificate: str = ""
    ca_certificates: str = ""
    server_name: str = ""


class Authentication(Model):
    """How mixer and an adapter know one another."""

    tls: Tls | None = None
    mutual: Mutual | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.tls is None) == (self.mutual is None):
            raise ValueError("needs either tls or mutual")
        return self


class Connection(Model):
    """Where an adapter outside of mixer listens."""

    address: Annotated[str, Field(min_length=1, max_length=512)]
    timeout: Nanoseconds | None = None
    authentication: Authentication | None = None


class Handler(Model):
    """An adapter with its parameters, which the adapter's own model checks.

    `compiledAdapter` is one that mixer has, `adapter` a document of kind adapter, reached by `connection`. What holds
    while an adapter that must be asked doesn't answer is `failurePolicy`; without one, checks are denied.
    """

    compiled_adapter: Annotated[str, Field(max_length=128)] = ""
    adapter: Annotated[str, Field(max_length=512)] = ""
    params: Parameters = Field(default_factory=dict)
    connection: Connection | None = None
    failure_policy: Literal["open", "closed"] | None = None
    timeout: Annotated[Nanoseconds, Field(ge=1_000_000, le=60_000_000_000)] | None = None
    max_in_flight: Annotated[int, Field(ge=1, le=100_000)] = 1000

    @model_validator(mode="after")
    def _one(self) -> Self:
        if bool(self.compiled_adapter) == bool(self.adapter):
            raise ValueError("needs either compiledAdapter or adapter")
        if self.connection is not None and not self.adapter:
            raise ValueError("connection: adapters of mixer have none; name an `adapter` instead of a compiledAdapter")
        return self


class Instance(Model):
    """A template filled with expressions, which the template's own model checks.

    `compiledTemplate` is one that mixer has, `template` a document of kind template. `attributeBindings` say which
    attributes get which values (`$out.FIELD`) of what an attribute generator puts out.
    """

    compiled_template: Annotated[str, Field(max_length=128)] = ""
    template: Annotated[str, Field(max_length=512)] = ""
    params: Parameters = Field(default_factory=dict)
    attribute_bindings: Annotated[dict[str, ExpressionText], Field(max_length=256)] = Field(default_factory=dict)
    language: Language = "CEXL"

    @model_validator(mode="after")
    def _one(self) -> Self:
        if bool(self.compiled_template) == bool(self.template):
            raise ValueError("needs either compiledTemplate or template")
        return self


class AttributeInfo(Model):
    """The type of one attribute."""

    description: str = ""
    value_type: ValueType

    @field_validator("value_type", mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        if isinstance(given, str) and given in ValueType.__members__:
            return ValueType[given]
        raise ValueError(f"unknown type: use one of {', '.join(ValueType.__members__)}")


class AttributeManifest(Model):
    """Attributes that requests may carry, beside those that mixer knows."""

    revision: str = ""
    name: str = ""
    attributes: Annotated[dict[str, AttributeInfo], Field(max_length=1000)] = Field(default_factory=dict)

    @field_validator("attributes")
    @classmethod
    def _readable(cls, attributes: dict[str, AttributeInfo]) -> dict[str, AttributeInfo]:
        for name in attributes:
            if len(name) > 256 or not is_name(name):
                raise ValueError(f"{name[:256]!r} can't be an attribute: use letters, digits and _, joined by dots")
        return attributes


class Template(Model):
    """A template of adapters outside of mixer: its proto descriptor set in base64."""

    descriptor: Annotated[str, Field(min_length=1)]


class Adapter(Model):
    """An adapter outside of mixer: the templates that it takes, and its parameters' descriptor set in base64."""

    description: str = ""
    templates: Annotated[list[Reference], Field(max_length=64)] = Field(default_factory=list)
    config: str = ""
    session_based: bool = False
