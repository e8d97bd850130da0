"""URI templates of an HTTPAPISpec: `/pets/{id}`, `/files/{path=**}`, `/shelves/*/books:list`.

`{name}` and `*` stand for one segment, `{name=**}` and `**` (only at the end) for any number of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering

_VARIABLE = re.compile(r"\{[A-Za-z_][A-Za-z0-9_.]*(?:=([^{}]+))?\}")
_LITERAL, _ONE, _REST = 0, 1, 2


@total_ordering
@dataclass(frozen=True)
class UriTemplate:
    """Templates are ordered: of two that fit a path the lesser one is the more exact, and is meant."""

    segments: tuple[tuple[int, str], ...]
    verb: str = ""

    def fits(self, path: str) -> bool:
        """Whether a path (without its query) is one that the template describes."""
        path = path.partition("?")[0]
        if self.verb:
            path, colon, verb = path.rpartition(":")
            if not colon or verb != self.verb:
                return False
        parts = path.strip("/").split("/") if path.strip("/") else []
        for number, (kind, text) in enumerate(self.segments):
            if kind == _REST:
                return True
            if number >= len(parts) or not parts[number] or (kind == _LITERAL and parts[number] != text):
                return False
        return len(parts) == len(self.segments)

    @property
    def pattern(self) -> str:
        """A regular expression (RE2) that matches a whole path, without a query, exactly where the template fits."""
        parts = [re.escape(text) if kind == _LITERAL else "[^/]+" for kind, text in self.segments if kind != _REST]
        body = f"/*{'/'.join(parts)}"
        if len(parts) == len(self.segments):
            body += "/*"
        else:
            body += "(?:/(?s:.*))?" if parts else "(?s:.*)"
        return f"{body}:{re.escape(self.verb)}" if self.verb else body

    def __lt__(self, other: UriTemplate) -> bool:
        return self._rank < other._rank

    @property
    def _rank(self) -> tuple[tuple[int, ...], bool]:
        return tuple(kind for kind, _ in self.segments), not self.verb


def parse(text: str) -> UriTemplate:
    """Read a template; ValueError says what is wrong with it."""
    if not text.startswith("/"):
        raise ValueError(f"{text!r} isn't a URI template: begin with /")
    plain = _VARIABLE.sub(lambda found: found.group(1) or "*", text)
    if "{" in plain or "}" in plain:
        raise ValueError(f"{text!r}: a variable is written {{name}} or {{name=**}}")
    head, colon, verb = plain.rpartition(":")
    if colon and "/" not in verb:
        plain = head
    else:
        verb = ""
    segments: list[tuple[int, str]] = []
    for part in plain.strip("/").split("/") if plain.strip("/") else []:
        if segments and segments[-1][0] == _REST:
            raise ValueError(f"{text!r}: ** must be the last segment")
        if not part or ("*" in part and part not in ("*", "**")):
            raise ValueError(f"{text!r}: a segment is text, *, ** or a variable")
        segments.append(({"*": _ONE, "**": _REST}.get(part, _LITERAL), part))
    return UriTemplate(tuple(segments), verb)
