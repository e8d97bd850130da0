"""How a text is compared, as Istio writes it: exactly one of `exact`, `prefix` and `regex`."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from meshwright.manager.model.document import Strict
from meshwright.manager.model.pattern import Regex
from meshwright.manager.model.routing import Text, TextMatch

MAX_TEXT = 2048


class StringMatch(Strict):
    """One comparison; none at all means that the text must be there (headers and query parameters)."""

    exact: Annotated[str, Field(max_length=MAX_TEXT)] | None = None
    prefix: Annotated[str, Field(max_length=MAX_TEXT)] | None = None
    regex: Annotated[Regex, Field(min_length=1)] | None = None

    def condition(self, *, ignore_case: bool = False, negated: bool = False) -> TextMatch:
        """Return it in the model's words."""
        for kind in (Text.EXACT, Text.PREFIX, Text.REGEX):
            value = getattr(self, kind.value)
            if value is not None:
                return TextMatch(kind, value, ignore_case, negated)
        return TextMatch(Text.PRESENT, "", False, negated)


def _at_most_one(match: StringMatch) -> StringMatch:
    said = [name for name in ("exact", "prefix", "regex") if getattr(match, name) is not None]
    if len(said) > 1:
        raise ValueError(f"has {' and '.join(said)}: write one of exact, prefix and regex")
    return match


def _one(match: StringMatch) -> StringMatch:
    if match.exact is None and match.prefix is None and match.regex is None:
        raise ValueError("compares with nothing: write one of exact, prefix and regex")
    return match


AnyOrMatch = Annotated[StringMatch, AfterValidator(_at_most_one)]
"""``{}`` means any value."""

Match = Annotated[StringMatch, AfterValidator(_at_most_one), AfterValidator(_one)]
