"""Template reportnothing: no data; for adapters that only count that something happened."""

from __future__ import annotations

from meshwright.mixer.templates.template import Template, Variety

TEMPLATE = Template("reportnothing", Variety.REPORT)
