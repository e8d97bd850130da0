"""Template checknothing: no data; for adapters that decide without looking."""

from __future__ import annotations

from meshwright.mixer.config.fields import Model
from meshwright.mixer.templates.template import Template, Variety


class CheckNothing(Model):
    """No parameters."""


TEMPLATE = Template("checknothing", Variety.CHECK, CheckNothing, lambda _: [])
