"""specs.smi-spec.io HTTPRouteGroup: requests by path, method and headers, each form of them under a name.

Conditions of one match must all hold, several matches are alternatives. Examples of the specification write `matches`
at the object's root under versions that have a spec; both places are read in every version (`smi.conversion`).
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from meshwright.manager.model.document import Document, Strict
from meshwright.manager.model.pattern import Regex, regex

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")

Method = Literal["*", "GET", "HEAD", "PUT", "POST", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]
Methods = Annotated[list[Method], Field(max_length=10)]


def _headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} isn't the name of a header")
        regex(value)
    if len({name.lower() for name in headers}) < len(headers):
        raise ValueError("names a header twice in different spelling: write it once")
    return headers


class FullMatch(Strict):
    """v1alpha1: every field is required."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    path_regex: Regex
    methods: Annotated[Methods, Field(min_length=1)]


class Match(Strict):
    """Requests under a name; what isn't said fits any."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    path_regex: Regex | None = None
    methods: Methods | None = None
    headers: Annotated[dict[str, str], Field(max_length=64), AfterValidator(_headers)] | None = None


def _distinct(matches: list[Match]) -> list[Match]:
    names = [match.name for match in matches]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"two matches are named {min(twice)!r}: give each a name of its own")
    return matches


Matches = Annotated[list[Match], Field(min_length=1, max_length=64), AfterValidator(_distinct)]


class HTTPRouteGroupV1(Document):
    """v1alpha1: at the root, without headers."""

    matches: Annotated[list[FullMatch], Field(min_length=1, max_length=64), AfterValidator(_distinct)]


class HTTPRouteGroupV2(Document):
    """v1alpha2: at the root."""

    matches: Matches


class HTTPRouteGroupSpec(Strict):
    """The matches."""

    matches: Matches


class HTTPRouteGroup(Document):
    """v1alpha3 and v1alpha4."""

    spec: HTTPRouteGroupSpec
