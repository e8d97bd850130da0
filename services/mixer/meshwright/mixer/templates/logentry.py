"""Template logentry: one line of a log, with variables."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from meshwright.mixer.cexl.types import ValueType
from meshwright.mixer.config.fields import ExpressionText, Model
from meshwright.mixer.templates.template import ANY, Template, TemplateField, Variety, map_fields

_TEXT = frozenset({ValueType.STRING})


class LogEntry(Model):
    """`variables` is the entry's content; without a timestamp the record's own time counts."""

    variables: Annotated[dict[str, ExpressionText], Field(max_length=256)] = Field(default_factory=dict)
    timestamp: ExpressionText | None = None
    severity: ExpressionText | None = None
    monitored_resource_type: ExpressionText | None = None
    monitored_resource_dimensions: Annotated[dict[str, ExpressionText], Field(max_length=64)] = Field(
        default_factory=dict
    )


def _fields(parameters: LogEntry) -> list[TemplateField]:
    fields = map_fields("variables", "variables", parameters.variables, ANY)
    for name, alias, source, types in (
        ("timestamp", "timestamp", parameters.timestamp, frozenset({ValueType.TIMESTAMP})),
        ("severity", "severity", parameters.severity, _TEXT),
        ("monitored_resource_type", "monitoredResourceType", parameters.monitored_resource_type, _TEXT),
    ):
        if source is not None:
            fields.append(TemplateField(name, (alias,), source, types))
    resources = parameters.monitored_resource_dimensions
    return fields + map_fields("monitored_resource_dimensions", "monitoredResourceDimensions", resources)


TEMPLATE = Template("logentry", Variety.REPORT, LogEntry, _fields)
