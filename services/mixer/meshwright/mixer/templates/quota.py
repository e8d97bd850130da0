"""Template quota: an amount to be charged, counted apart for every combination of dimensions."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from meshwright.mixer.config.fields import ExpressionText, Model
from meshwright.mixer.templates.template import SCALAR, Template, TemplateField, Variety


class Quota(Model):
    """`dimensions` name what is counted apart; without any, there is one count for all requests."""

    dimensions: Annotated[dict[str, ExpressionText], Field(max_length=64)] = Field(default_factory=dict)


def _fields(parameters: Quota) -> list[TemplateField]:
    dimensions = parameters.dimensions
    return [TemplateField(name, ("dimensions", name), dimensions[name], SCALAR) for name in sorted(dimensions)]


TEMPLATE = Template("quota", Variety.QUOTA, Quota, _fields)
