"""Which calls get a line in the access log, as one short text: "failed,/grpc.health.v1.Health/=off,/a.B/C=all".

Each rule is `off`, `failed` (refused, or failed on this side) or `all`, for the methods whose path begins so; a rule
without a path is for all others, and the longest path that fits decides.
"""

from __future__ import annotations

from typing import Annotated

import pydantic

from meshwright.core import errors

DEFAULT = "failed"


def parse(text: str) -> dict[str, str]:
    """Return the rules by prefix; ConfigError names the one that is none."""
    rules: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        prefix, _, which = part.rpartition("=")
        if which not in ("off", "failed", "all") or (prefix and not prefix.startswith("/")) or prefix in rules:
            raise errors.ConfigError(
                f"{part!r} is no rule, or a second one for the same methods",
                field="access_log",
                remedy='use "off", "failed" or "all", and by method "/package.Service/Method=…"',
            )
        rules[prefix] = which
    return rules


def _checked(text: str) -> str:
    try:
        parse(text)
    except errors.ConfigError as error:
        raise ValueError(str(error)) from error
    return text


AccessRules = Annotated[str, pydantic.AfterValidator(_checked)]
"""The text as a field of settings."""
