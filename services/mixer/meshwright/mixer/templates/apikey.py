"""Template apikey: a key that a caller presents for an operation of an API."""

from __future__ import annotations

from meshwright.mixer.cexl.types import ValueType
from meshwright.mixer.templates.template import Template, Variety, one, text

TEMPLATE = Template(
    "apikey",
    Variety.CHECK,
    (*text("api", "api_version", "api_operation", "api_key"), one("timestamp", ValueType.TIMESTAMP)),
)
