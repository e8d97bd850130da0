"""The templates that instances fill, by name; one file each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from meshwright.mixer.templates import checknothing, listentry, logentry, metric, quota
from meshwright.mixer.templates.template import Template, TemplateField, Variety

__all__ = ["TEMPLATES", "Template", "TemplateField", "Variety"]

TEMPLATES: Mapping[str, Template] = MappingProxyType(
    {module.TEMPLATE.name: module.TEMPLATE for module in (checknothing, listentry, logentry, metric, quota)}
)
