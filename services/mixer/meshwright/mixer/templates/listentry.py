"""Template listentry: one value to be looked up in a list."""

from __future__ import annotations

from meshwright.mixer.cexl.types import ValueType
from meshwright.mixer.templates.template import Template, Variety, one

TEMPLATE = Template("listentry", Variety.CHECK, (one("value", ValueType.STRING, ValueType.IP_ADDRESS, required=True),))
