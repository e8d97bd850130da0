"""The templates that instances fill, by name; one file each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from meshwright.mixer.templates import (
    apikey,
    authorization,
    checknothing,
    edge,
    kubernetes,
    listentry,
    logentry,
    metric,
    otlp,
    quota,
    reportnothing,
    tracespan,
)
from meshwright.mixer.templates.template import FieldType, Template, TemplateField, Variety

__all__ = ["TEMPLATES", "FieldType", "Template", "TemplateField", "Variety"]

_MODULES = (
    apikey,
    authorization,
    checknothing,
    edge,
    kubernetes,
    listentry,
    logentry,
    metric,
    otlp,
    quota,
    reportnothing,
    tracespan,
)

TEMPLATES: Mapping[str, Template] = MappingProxyType({module.TEMPLATE.name: module.TEMPLATE for module in _MODULES})
