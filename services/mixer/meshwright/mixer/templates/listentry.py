"""Template listentry: one value to be looked up in a list."""

from __future__ import annotations

from meshwright.mixer.cexl.types import ValueType
from meshwright.mixer.config.fields import ExpressionText, Model
from meshwright.mixer.templates.template import Template, TemplateField, Variety

_TYPES = frozenset({ValueType.STRING, ValueType.IP_ADDRESS})


class ListEntry(Model):
    """`value` is what the list is asked for."""

    value: ExpressionText


def _fields(parameters: ListEntry) -> list[TemplateField]:
    return [TemplateField("value", ("value",), parameters.value, _TYPES)]


TEMPLATE = Template("listentry", Variety.CHECK, ListEntry, _fields)
