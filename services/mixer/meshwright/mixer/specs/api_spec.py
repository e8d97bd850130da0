"""HTTPAPISpec and HTTPAPISpecBinding: what a service's API calls its operations, and where callers put their keys."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cached_property
from http.cookies import CookieError, SimpleCookie
from typing import Annotated, Any, Self
from urllib.parse import parse_qs

from pydantic import Field, field_validator, model_validator

from meshwright.mixer.cexl.durations import parse_duration
from meshwright.mixer.config.fields import Int64, Model
from meshwright.mixer.specs import uri_template
from meshwright.mixer.specs.quota_spec import compile_pattern
from meshwright.mixer.specs.service import Service, SpecReference
from meshwright.mixer.specs.uri_template import UriTemplate

AttributeValue = str | int | float | bool | bytes | datetime | timedelta | dict[str, str]
_MAX_PATH = 8192  # that a regular expression looks at: longer paths don't match


class StringMap(Model):
    """The entries of a map of strings."""

    entries: Annotated[dict[str, str], Field(max_length=256)] = Field(default_factory=dict)


class Value(Model):
    """One attribute's value, in the field of its type (as JSON writes istio.mixer.v1.Attributes.AttributeValue)."""

    string_value: str | None = None
    int64_value: Int64 | None = None
    double_value: float | None = None
    bool_value: bool | None = None
    bytes_value: bytes | None = None
    timestamp_value: datetime | None = None
    duration_value: timedelta | None = None
    string_map_value: StringMap | None = None

    @field_validator("int64_value", mode="before")
    @classmethod
    def _as_text(cls, given: Any) -> Any:
        """JSON writes an int64 as text as well."""
        return int(given) if isinstance(given, str) and re.fullmatch(r"-?\d{1,19}", given) else given

    @field_validator("bytes_value", mode="before")
    @classmethod
    def _base64(cls, given: Any) -> Any:
        try:
            return base64.b64decode(given, validate=True) if isinstance(given, str) else given
        except binascii.Error:
            raise ValueError("not base64") from None

    @field_validator("timestamp_value", mode="before")
    @classmethod
    def _moment(cls, given: Any) -> Any:
        try:
            moment = datetime.fromisoformat(given) if isinstance(given, str) else None
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            raise ValueError('not a time: write for example "2026-01-02T15:04:05Z"')
        return moment

    @field_validator("duration_value", mode="before")
    @classmethod
    def _span(cls, given: Any) -> Any:
        nanoseconds = parse_duration(given) if isinstance(given, str) else None
        if nanoseconds is None:
            raise ValueError('not a duration: write for example "5s"')
        return timedelta(microseconds=nanoseconds / 1000)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError("needs exactly one value, such as stringValue")
        return self

    @property
    def plain(self) -> AttributeValue:
        """The value itself."""
        found: Any = getattr(self, next(iter(self.model_fields_set)))
        return found.entries if isinstance(found, StringMap) else found


class Attributes(Model):
    """Attributes as istio.mixer.v1.Attributes writes them."""

    attributes: Annotated[dict[str, Value], Field(max_length=256)] = Field(default_factory=dict)

    @cached_property
    def plain(self) -> dict[str, AttributeValue]:
        """The values themselves."""
        return {name: value.plain for name, value in self.attributes.items()}


class Pattern(Model):
    """What requests of this method and path are called: the path by a URI template, or by a regular expression."""

    attributes: Attributes = Field(default_factory=Attributes)
    http_method: Annotated[str, Field(min_length=1, max_length=64)]
    uri_template: Annotated[str, Field(max_length=1024)] | None = None
    regex: Annotated[str, Field(max_length=1024)] | None = None

    @field_validator("uri_template")
    @classmethod
    def _parses(cls, text: str | None) -> str | None:
        if text is not None:
            uri_template.parse(text)
        return text

    @field_validator("regex")
    @classmethod
    def _compiles(cls, text: str | None) -> str | None:
        if text is not None:
            compile_pattern(text)
        return text

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.uri_template is None) == (self.regex is None):
            raise ValueError("needs either uriTemplate or regex")
        return self

    @cached_property
    def template(self) -> UriTemplate | None:
        """The URI template, if it is one."""
        return None if self.uri_template is None else uri_template.parse(self.uri_template)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(self.regex or "")

    def fits(self, method: str, path: str) -> bool:
        """Whether a request is meant; a regular expression must fit the whole path, without its query."""
        if method != self.http_method:
            return False
        if self.template is not None:
            return self.template.fits(path)
        path = path.partition("?")[0]
        return len(path) <= _MAX_PATH and self._pattern.fullmatch(path) is not None


class ApiKey(Model):
    """Where callers put their key: a parameter of the query, a header or a cookie."""

    query: str | None = None
    header: str | None = None
    cookie: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(bool(each) for each in (self.query, self.header, self.cookie)) != 1:
            raise ValueError("needs one of query, header and cookie")
        return self

    def find(self, path: str, headers: Mapping[str, str]) -> str | None:
        """The key of a request; `headers` have names in lower case."""
        if self.query is not None:
            return next(iter(parse_qs(path.partition("?")[2], max_num_fields=256).get(self.query, ())), None)
        if self.header is not None:
            return headers.get(self.header.lower()) or None
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(self.cookie or "")
        except CookieError:
            return None
        return morsel.value or None if morsel is not None else None


USUAL_KEYS = (ApiKey(query="key"), ApiKey(query="api_key"), ApiKey(header="x-api-key"))
"""Where a key is looked for when a spec doesn't say."""


class HttpApiSpec(Model):
    """`attributes` of all requests, those of `patterns` beside, and the places of the key, the first found counts."""

    attributes: Attributes = Field(default_factory=Attributes)
    patterns: Annotated[list[Pattern], Field(max_length=1024)] = Field(default_factory=list)
    api_keys: Annotated[list[ApiKey], Field(max_length=64)] = Field(default_factory=list)

    def attributes_of(self, method: str, path: str) -> dict[str, AttributeValue]:
        """What a request is called: the most exact URI template that fits counts, then every regular expression."""
        found = dict(self.attributes.plain)
        fitting = [pattern for pattern in self.patterns if pattern.fits(method, path)]
        templates = [pattern for pattern in fitting if pattern.template is not None]
        if templates:
            found.update(min(templates, key=lambda pattern: pattern.template).attributes.plain)  # type: ignore[arg-type,return-value]
        for pattern in fitting:
            if pattern.template is None:
                found.update(pattern.attributes.plain)
        return found

    def api_key(self, path: str, headers: Mapping[str, str]) -> str | None:
        """The caller's key; without `apiKeys` it is looked for in `?key=`, `?api_key=` and x-api-key."""
        places = self.api_keys or USUAL_KEYS
        return next((key for place in places if (key := place.find(path, headers)) is not None), None)


class HttpApiSpecBinding(Model):
    """Which services the specs describe."""

    services: Annotated[list[Service], Field(max_length=256)] = Field(default_factory=list)
    api_specs: Annotated[list[SpecReference], Field(max_length=64)] = Field(default_factory=list)
