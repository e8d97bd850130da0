"""The one error of the expression language: it always knows where in the text it is, and what to write instead."""

from __future__ import annotations


class ExpressionError(ValueError):
    """An expression that can't be used.

    `position` counts characters from 0; `reason` says what is wrong and `remedy` what to do about it. Whoever compiles
    configuration adds the object and the field, which this package knows nothing of.
    """

    def __init__(self, source: str, position: int, reason: str, remedy: str) -> None:
        self.source = source
        self.position = position
        self.reason = reason
        self.remedy = remedy
        super().__init__(f"{reason} at character {position + 1}{self._near()}: {remedy}")

    def _near(self) -> str:
        start = max(0, self.position - 12)
        excerpt = " ".join(self.source[start : self.position + 24].split())
        return f" (near `{excerpt}`)" if excerpt else ""
