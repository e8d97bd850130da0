"""Template metric: a measured value, and the dimensions that it is told apart by."""

from __future__ import annotations

from meshwright.mixer.cexl.types import ValueType
from meshwright.mixer.templates.template import SCALAR, Template, Variety, many, one, text

_MEASURES = (ValueType.INT64, ValueType.DOUBLE, ValueType.DURATION)

TEMPLATE = Template(
    "metric",
    Variety.REPORT,
    (
        one("value", *_MEASURES, required=True),
        many("dimensions", SCALAR),
        *text("monitored_resource_type"),
        many("monitored_resource_dimensions", SCALAR),
    ),
)
