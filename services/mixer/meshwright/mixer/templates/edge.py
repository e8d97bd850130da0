"""Template edge: who called whom, for a graph of services."""

from __future__ import annotations

from meshwright.mixer.cexl.types import ValueType
from meshwright.mixer.templates.template import Template, Variety, one, text

TEMPLATE = Template(
    "edge",
    Variety.REPORT,
    (
        one("timestamp", ValueType.TIMESTAMP),
        *text(
            "source_workload_namespace",
            "source_workload_name",
            "source_owner",
            "source_uid",
            "destination_workload_namespace",
            "destination_workload_name",
            "destination_owner",
            "destination_uid",
            "destination_service_namespace",
            "destination_service_name",
            "context_protocol",
            "api_protocol",
        ),
    ),
)
