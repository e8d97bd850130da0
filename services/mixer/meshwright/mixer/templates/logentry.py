"""Template logentry: one line of a log; `variables` are its content, without a timestamp the record's time counts."""

from __future__ import annotations

from meshwright.mixer.cexl.types import ValueType
from meshwright.mixer.templates.template import SCALAR, Template, Variety, many, one, text

TEMPLATE = Template(
    "logentry",
    Variety.REPORT,
    (
        many("variables"),
        one("timestamp", ValueType.TIMESTAMP),
        *text("severity", "monitored_resource_type"),
        many("monitored_resource_dimensions", SCALAR),
    ),
)
