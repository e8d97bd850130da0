"""Template metric: a measured value with dimensions."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from meshwright.mixer.cexl.types import ValueType
from meshwright.mixer.config.fields import ExpressionText, Model
from meshwright.mixer.templates.template import Template, TemplateField, Variety, map_fields

_MEASURES = frozenset({ValueType.INT64, ValueType.DOUBLE, ValueType.DURATION})
_TEXT = frozenset({ValueType.STRING})


class Metric(Model):
    """`value` is the measurement, `dimensions` what it is told apart by."""

    value: ExpressionText
    dimensions: Annotated[dict[str, ExpressionText], Field(max_length=64)] = Field(default_factory=dict)
    monitored_resource_type: ExpressionText | None = None
    monitored_resource_dimensions: Annotated[dict[str, ExpressionText], Field(max_length=64)] = Field(
        default_factory=dict
    )


def _fields(parameters: Metric) -> list[TemplateField]:
    fields = [TemplateField("value", ("value",), parameters.value, _MEASURES)]
    fields += map_fields("dimensions", "dimensions", parameters.dimensions)
    if parameters.monitored_resource_type is not None:
        resource = parameters.monitored_resource_type
        fields.append(TemplateField("monitored_resource_type", ("monitoredResourceType",), resource, _TEXT))
    resources = parameters.monitored_resource_dimensions
    return fields + map_fields("monitored_resource_dimensions", "monitoredResourceDimensions", resources)


TEMPLATE = Template("metric", Variety.REPORT, Metric, _fields)
