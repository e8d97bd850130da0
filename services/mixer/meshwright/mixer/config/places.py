"""Remembers which document each part of a compiled policy came from, to explain why the engine refuses one.

The engine names parts by list and index (`nodes[3]`, `rules[0] (deny.default)`); people know objects and fields.
"""

from __future__ import annotations

import re
from collections import defaultdict

from meshwright.mixer.config.documents import Documents
from meshwright.mixer.config.violation import Identity, PolicyError, Violation

_PLACE = re.compile(r"(?:compiled policy refused: )?(?P<list>\w+)\[(?P<index>\d+)\](?P<rest>.*)", re.DOTALL)
_FIELDS = {"instances": "spec.params", "handlers": "spec.params", "rules": "spec"}


class Places:
    """For each list of the policy, the violations that its parts would be, without their message."""

    def __init__(self) -> None:
        self._lists: dict[str, list[Violation]] = defaultdict(list)

    def add(self, name: str, identity: Identity, found: Documents, field: str = "") -> int:
        """Note that the list's next part comes from `identity`; return the part's index."""
        known = self._lists[name]
        known.append(Violation(identity, field or _FIELDS[name], "", found.sources.get(identity, "")))
        return len(known) - 1

    def explain(self, refusal: str) -> PolicyError | None:
        """The engine's refusal as a violation of a document; None when it names none of ours."""
        match = _PLACE.match(refusal)
        known = self._lists.get(match["list"], []) if match else []
        if match is None or int(match["index"]) >= len(known):
            return None
        place = known[int(match["index"])]
        reason = match["rest"].partition(": ")[2] or match["rest"]
        return PolicyError([Violation(place.object, place.field, reason, place.source)])
