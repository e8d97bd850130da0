"""Template authorization: who (subject) wants to do what (action)."""

from __future__ import annotations

from meshwright.mixer.templates.template import Template, Variety, many, text

TEMPLATE = Template(
    "authorization",
    Variety.CHECK,
    (
        *text("subject.user", "subject.groups"),
        many("subject.properties"),
        *text("action.namespace", "action.service", "action.method", "action.path"),
        many("action.properties"),
    ),
)
