"""QuotaSpec and QuotaSpecBinding: which quotas a request is charged, and how much."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from meshwright.mixer.config.fields import Int32, Model
from meshwright.mixer.specs.service import Service, SpecReference

_MAX_TEXT = 8192  # of an attribute that a regular expression looks at: longer ones don't match


class StringMatch(Model):
    """Exactly a text, a text's beginning, or a regular expression that fits all of it."""

    exact: str | None = None
    prefix: str | None = None
    regex: Annotated[str, Field(max_length=1024)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(each is not None for each in (self.exact, self.prefix, self.regex)) != 1:
            raise ValueError("needs one of exact, prefix and regex")
        return self

    @field_validator("regex")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            compile_pattern(pattern)
        return pattern

    def fits(self, text: str) -> bool:
        """Whether the text is one that is meant."""
        if self.exact is not None:
            return text == self.exact
        if self.prefix is not None:
            return text.startswith(self.prefix)
        return len(text) <= _MAX_TEXT and self._pattern.fullmatch(text) is not None

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(self.regex or "")


class AttributeMatch(Model):
    """All of `clause` must fit: attributes (for an entry of a map `name["key"]` isn't known here) of type STRING."""

    clause: Annotated[dict[str, StringMatch], Field(min_length=1, max_length=64)]

    def fits(self, attributes: Mapping[str, Any]) -> bool:
        """Whether every named attribute is there and fits."""
        return all(
            isinstance(value := attributes.get(name), str) and match.fits(value) for name, match in self.clause.items()
        )


class Quota(Model):
    """A quota's name as mixer knows it, and the amount of one request."""

    quota: Annotated[str, Field(min_length=1, max_length=512)]
    charge: Annotated[Int32, Field(ge=1)] = 1


class QuotaRule(Model):
    """When one of `match` fits (or there is none), all `quotas` are charged."""

    match: Annotated[list[AttributeMatch], Field(max_length=64)] = Field(default_factory=list)
    quotas: Annotated[list[Quota], Field(min_length=1, max_length=64)]

    def fits(self, attributes: Mapping[str, Any]) -> bool:
        """Whether the request is one that this rule charges."""
        return not self.match or any(match.fits(attributes) for match in self.match)


class QuotaSpec(Model):
    """Every rule that fits charges; a quota that several rules charge is charged all of it."""

    rules: Annotated[list[QuotaRule], Field(max_length=256)] = Field(default_factory=list)

    def quotas(self, attributes: Mapping[str, Any]) -> dict[str, int]:
        """What a request with these attributes is charged: amounts by quota."""
        charged: dict[str, int] = {}
        for rule in self.rules:
            if rule.fits(attributes):
                for quota in rule.quotas:
                    charged[quota.quota] = charged.get(quota.quota, 0) + quota.charge
        return charged


class QuotaSpecBinding(Model):
    """Which services' requests the specs are for."""

    services: Annotated[list[Service], Field(max_length=256)] = Field(default_factory=list)
    quota_specs: Annotated[list[SpecReference], Field(max_length=64)] = Field(default_factory=list)


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Compile a regular expression of configuration; ValueError says why not."""
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"not a regular expression: {error}") from None
