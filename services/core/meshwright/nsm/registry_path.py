"""The path of a registration, which travels as JSON in the metadata `path` beside the message (nsm.md, pitfall 3).

One decision to know: the JSON is read strictly. `{"Index":0,"PathSegments":[null]}` ends the original registry; here
anything that isn't a list of objects with texts is refused with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from meshwright.nsm.errors import InvalidPath
from meshwright.nsm.path import MAX_HOPS

METADATA = "path"
_LIMIT = 256 * 1024  # octets of JSON: 32 hops with tokens of 8 KiB each


@dataclass(frozen=True, slots=True)
class RegistryPath:
    """The tokens of the hops that a registration passed; `index` is the hop that sends."""

    index: int = 0
    tokens: tuple[str, ...] = ("",)

    def with_caller(self, token: str, own: str) -> RegistryPath:
        """Return the path with the caller's token in its place and this hop's own after it."""
        return replace(self, tokens=(*self.tokens[: self.index], token, own))

    def next_hop(self) -> RegistryPath:
        """Return the path as this hop sends it on."""
        return RegistryPath(self.index + 1, self.tokens[: self.index + 2])

    def dump(self) -> str:
        """Return the JSON form, with the original's capitals."""
        segments = [{"token": token} for token in self.tokens]
        return json.dumps({"Index": self.index, "PathSegments": segments}, separators=(",", ":"))


def parse(text: str) -> RegistryPath:
    """Read the metadata; raise InvalidPath. `null`, `{}` and lower-case keys are accepted, as the original does."""
    if len(text) > _LIMIT:
        raise InvalidPath(f"longer than {_LIMIT} octets", field="metadata path")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidPath("isn't JSON", field="metadata path") from error
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise InvalidPath("isn't a JSON object", field="metadata path")
    fields = {str(key).lower(): content for key, content in value.items()}
    index = fields.get("index", 0)
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < MAX_HOPS:
        raise InvalidPath(f"must be a number from 0 to {MAX_HOPS - 1}", field="metadata path.Index")
    segments = fields.get("pathsegments")
    tokens = _tokens([] if segments is None else segments)
    if index > len(tokens) or (tokens and index == len(tokens)):
        raise InvalidPath(f"is {index} in a path of {len(tokens)}", field="metadata path.Index")
    return RegistryPath(index, tokens or ("",))


def find(metadata: Sequence[tuple[str, Any]] | None) -> str | None:
    """Return the value of the metadata `path`, the last of several, or None."""
    values = [value for key, value in metadata or () if key == METADATA]
    if not values:
        return None
    return values[-1].decode(errors="replace") if isinstance(values[-1], bytes) else str(values[-1])


def _tokens(segments: Any) -> tuple[str, ...]:
    if not isinstance(segments, list):
        raise InvalidPath("isn't a list", field="metadata path.PathSegments")
    if len(segments) > MAX_HOPS:
        raise InvalidPath(f"has more than {MAX_HOPS} hops", field="metadata path.PathSegments")
    tokens = []
    for position, segment in enumerate(segments):
        if not isinstance(segment, dict):
            raise InvalidPath("isn't an object", field=f"metadata path.PathSegments[{position}]")
        token = next((content for key, content in segment.items() if str(key).lower() == "token"), "")
        if token is None:
            token = ""
        if not isinstance(token, str):
            raise InvalidPath("isn't a text", field=f"metadata path.PathSegments[{position}].token")
        tokens.append(token)
    return tuple(tokens)
