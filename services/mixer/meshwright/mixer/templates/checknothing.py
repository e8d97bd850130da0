"""Template checknothing: no data; for adapters that decide without looking."""

from __future__ import annotations

from meshwright.mixer.templates.template import Template, Variety

TEMPLATE = Template("checknothing", Variety.CHECK)
