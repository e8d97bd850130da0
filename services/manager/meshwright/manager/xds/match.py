"""Conditions on requests, as Envoy states them: envoy.config.route.v3.RouteMatch."""

from __future__ import annotations

import re
from collections.abc import Iterator

from google.protobuf.wrappers_pb2 import BoolValue

from meshwright.api.envoy.config.route.v3.route_components_pb2 import (
    HeaderMatcher,
    QueryParameterMatcher,
    RouteMatch,
)
from meshwright.api.envoy.type.matcher.v3.regex_pb2 import RegexMatcher
from meshwright.api.envoy.type.matcher.v3.string_pb2 import StringMatcher
from meshwright.manager.model.routing import HttpMatch, Text, TextMatch

EVERYTHING = HttpMatch()


def route_match(match: HttpMatch, *, methods: bool = True) -> RouteMatch:
    """Translate conditions, those about the caller and the port excepted; `methods` False leaves out methods."""
    made = RouteMatch(headers=list(_headers(match, methods=methods)))
    _path(made, match.path)
    for name, text in match.query:
        if text.negated:  # a parameter can't be negated: the path with its query can
            value = f"={pattern(text, rest='[^&]*')}"
            value = f"(?:{value})?" if text.kind is Text.PRESENT or not text.value else value
            made.headers.append(_unlike(":path", rf"[^?]*\?(?:.*&)?{re.escape(name)}{value}(?:&.*)?"))
        elif text.kind is Text.PRESENT:
            made.query_parameters.append(QueryParameterMatcher(name=name, present_match=True))
        else:
            made.query_parameters.append(QueryParameterMatcher(name=name, string_match=string(text)))
    return made


def _path(made: RouteMatch, path: TextMatch | None) -> None:
    if path is None or path.kind is Text.PRESENT:
        made.prefix = "/"
        return
    if path.negated:
        made.prefix = "/"
        made.headers.append(_unlike(":path", rf"{pattern(path)}(?:\?.*)?"))
        return
    match path.kind:
        case Text.EXACT:
            made.path = path.value
        case Text.PREFIX:
            made.prefix = path.value
        case Text.SEGMENTS if path.value.rstrip("/"):
            made.path_separated_prefix = path.value.rstrip("/")
        case Text.SEGMENTS:
            made.prefix = "/"
        case _:
            made.safe_regex.regex = pattern(path)
            return
    if path.ignore_case:
        made.case_sensitive.CopyFrom(BoolValue(value=False))


def _headers(match: HttpMatch, *, methods: bool) -> Iterator[HeaderMatcher]:
    if match.methods and methods:
        if len(match.methods) == 1:
            yield HeaderMatcher(name=":method", string_match=StringMatcher(exact=match.methods[0]))
        else:
            pattern = "|".join(re.escape(method) for method in match.methods)
            yield HeaderMatcher(name=":method", string_match=StringMatcher(safe_regex=RegexMatcher(regex=pattern)))
    if match.authority is not None:
        yield header(":authority", match.authority)
    if match.scheme is not None:
        yield header(":scheme", match.scheme)
    for name, text in match.headers:
        yield header(name, text)


def header(name: str, text: TextMatch) -> HeaderMatcher:
    """Translate a condition on a header."""
    if text.kind is Text.PRESENT:
        return HeaderMatcher(name=name, present_match=True, invert_match=text.negated)
    # Envoy lets a missing header fulfil no condition, not even a negated one, unless it counts as an empty one.
    return HeaderMatcher(
        name=name,
        string_match=string(text),
        invert_match=text.negated,
        treat_missing_header_as_empty=text.negated,
    )


def string(text: TextMatch) -> StringMatcher:
    """Translate a condition on a text, without its negation."""
    if text.kind is Text.EXACT:
        return StringMatcher(exact=text.value, ignore_case=text.ignore_case)
    if text.kind is Text.PREFIX and text.value:
        return StringMatcher(prefix=text.value, ignore_case=text.ignore_case)
    if text.kind is Text.SUFFIX and text.value:
        return StringMatcher(suffix=text.value, ignore_case=text.ignore_case)
    return StringMatcher(safe_regex=RegexMatcher(regex=pattern(text)))


def pattern(text: TextMatch, *, rest: str = ".*") -> str:
    """Return RE2's expression for the whole of a text; never an empty one, which Envoy takes for none."""
    quoted = re.escape(text.value)
    made = {
        Text.EXACT: quoted,
        Text.PREFIX: f"{quoted}{rest}",
        Text.SEGMENTS: f"{re.escape(text.value.rstrip('/'))}(?:/.*)?",
        Text.SUFFIX: f"{rest}{quoted}",
        Text.REGEX: text.value,
        Text.PRESENT: rest,
    }[text.kind]
    return f"(?i:{made})" if text.ignore_case else f"(?:{made})" if "|" in made or not made else made


def _unlike(name: str, pattern: str) -> HeaderMatcher:
    matcher = StringMatcher(safe_regex=RegexMatcher(regex=pattern))
    return HeaderMatcher(name=name, string_match=matcher, invert_match=True)
