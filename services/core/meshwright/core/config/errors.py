"""Faults in a document, with the place a person has to look at.

ConfigError (core.errors)
└── DocumentError   knows the source (``file.yaml#2``: the second document) and, where there is one, the line
"""

from __future__ import annotations

from meshwright.core import errors


class DocumentError(errors.ConfigError):
    """A document that can't be accepted."""

    def __init__(self, message: str, *, source: str, line: int = 0, field: str = "", remedy: str = "") -> None:
        super().__init__(message, field=field, remedy=remedy)
        self.source, self.line = source, line
        place = f"{source}, line {line}" if line else source
        subject = f"{field}: " if field else ""
        hint = f" ({remedy})" if remedy else ""
        self.args = (f"{place}: {subject}{message}{hint}",)
