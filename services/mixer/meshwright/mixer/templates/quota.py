"""Template quota: an amount to be charged, counted apart for every combination of dimensions; without any, once."""

from __future__ import annotations

from meshwright.mixer.templates.template import SCALAR, Template, Variety, many

TEMPLATE = Template("quota", Variety.QUOTA, (many("dimensions", SCALAR),))
