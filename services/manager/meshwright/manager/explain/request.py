"""A request as a caller would make it, and which condition on it fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from meshwright.core import errors
from meshwright.manager.explain import regular
from meshwright.manager.model.routing import HttpMatch, Text, TextMatch

MAX_PATH = 4_000
MAX_HEADERS = 100
MAX_VALUE = 4_000


@dataclass(frozen=True, slots=True)
class Request:
    """`authority` is what the caller names as host; header names are in lower case."""

    authority: str
    path: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    scheme: str = "http"

    def checked(self) -> Request:
        """Return itself; raise ConfigError for what no request can be."""
        if not self.path.startswith("/"):
            raise errors.ConfigError(f"is {self.path[:50]!r}", field="path", remedy="begin it with /")
        if len(self.path) > MAX_PATH or len(self.authority) > 300:
            raise errors.Exhausted(f"a path of at most {MAX_PATH} characters and a host of 300 are explained")
        if len(self.headers) > MAX_HEADERS or any(len(value) > MAX_VALUE for value in self.headers.values()):
            raise errors.Exhausted(f"at most {MAX_HEADERS} headers of {MAX_VALUE} characters are explained")
        return self


def failing(match: HttpMatch, request: Request) -> str:
    """Say which condition of a match the request doesn't fulfil, the caller and the port excepted; empty: it fits."""
    return next((reason for reason in _failing(match, request) if reason), "")


def _failing(match: HttpMatch, request: Request) -> Iterator[str]:
    path, _, query = request.path.partition("?")
    yield _told("path", match.path, path)
    if match.methods and request.method not in match.methods:
        yield f"method {request.method} isn't {' or '.join(match.methods)}"
    for name, text in match.headers:
        yield _told(f"header {name}", text, request.headers.get(name))
    parameters = dict(reversed(parse_qsl(query, keep_blank_values=True, max_num_fields=None)))  # the first one counts
    for name, text in match.query:
        yield _told(f"query parameter {name}", text, parameters.get(name))
    yield _told("authority", match.authority, request.authority)
    yield _told("scheme", match.scheme, request.scheme)


def _told(what: str, text: TextMatch | None, value: str | None) -> str:
    if text is None:
        return ""
    found = _fits(text, value)
    if found is None:
        return f"{what}: whether {value!r} fits {text.value!r} can't be told here"
    if found is not text.negated:
        return ""
    shown = "is missing" if value is None else f"is {value[:100]!r}"
    return f"{what} {shown}, not {_wanted(text)}" if not text.negated else f"{what} {shown}, which must not be"


def _wanted(text: TextMatch) -> str:
    words = {
        Text.EXACT: repr(text.value),
        Text.PREFIX: f"{text.value!r} with anything behind it",
        Text.SEGMENTS: f"{text.value!r} or below it",
        Text.SUFFIX: f"something that ends with {text.value!r}",
        Text.REGEX: f"what fits {text.value!r}",
        Text.PRESENT: "there",
    }
    return words[text.kind] + (" in any case" if text.ignore_case else "")


def _fits(text: TextMatch, value: str | None) -> bool | None:
    """Return whether a text fits, negation left out."""
    if value is None:
        return False
    wanted = text.value
    if text.kind is Text.REGEX:
        return regular.fits(wanted, value, ignore_case=text.ignore_case)
    if text.ignore_case:
        wanted, value = wanted.lower(), value.lower()
    match text.kind:
        case Text.EXACT:
            return value == wanted
        case Text.PREFIX:
            return value.startswith(wanted)
        case Text.SUFFIX:
            return value.endswith(wanted)
        case Text.SEGMENTS:
            bare = wanted.rstrip("/")
            return value == bare or value.startswith(f"{bare}/")
    return True
