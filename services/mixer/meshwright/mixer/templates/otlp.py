"""Template otlp: telemetry as it came by OTLP, for adapters that forward it; rules choose whose and of which kind."""

from __future__ import annotations

from meshwright.mixer.templates.template import Template, Variety

TEMPLATE = Template("otlp", Variety.REPORT)
