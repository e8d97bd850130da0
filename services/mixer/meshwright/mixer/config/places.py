"""Remembers which document each part of a compiled policy came from, to explain why the engine refuses one.

The engine names parts by list and index (`nodes[3]`, `rules[0] (deny.default)`); people know objects and fields.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from meshwright.mixer.config.documents import Documents
from meshwright.mixer.config.violation import Identity, Violation

_PLACE = re.compile(r"(?:compiled policy refused: )?(?P<list>\w+)\[(?P<index>\d+)\](?P<rest>.*)", re.DOTALL)
_FIELDS = {"instances": "spec.params", "handlers": "spec.params", "rules": "spec"}


class Places:
    """For each list of the policy, whose its parts are.

    `arguments` are those of the policy's nodes, which documents share: whoever uses one that is refused is at fault.
    """

    def __init__(self, found: Documents, arguments: Sequence[Iterable[int]] = ()) -> None:
        self._found = found
        self._lists: dict[str, list[Identity]] = defaultdict(list)
        self._arguments = arguments
        self.roots: list[tuple[int, Identity, str]] = []
        """The nodes that are whole expressions, with their documents and fields."""
        self.owned: list[tuple[int, Identity, str]] = []
        """The nodes that documents have put into the expressions of others, and are at fault for."""

    def add(self, name: str, identity: Identity) -> int:
        """Note that the list's next part comes from `identity`; return the part's index."""
        known = self._lists[name]
        known.append(identity)
        return len(known) - 1

    def explain(self, refusal: str) -> list[Violation]:
        """The engine's refusal as violations of documents; none when it names no part of ours."""
        match = _PLACE.match(refusal)
        if match is None:
            return []
        index = int(match["index"])
        reason = match["rest"].partition(": ")[2] or match["rest"]
        if match["list"] == "nodes":
            using = self._using(index)
            owned = [(identity, field) for node, identity, field in self.owned if node in using]
            places = owned or [(identity, field) for node, identity, field in self.roots if node in using]
        else:
            name = match["list"]
            places = [(identity, _FIELDS[name]) for identity in self._lists.get(name, [])[index : index + 1]]
        return [
            Violation(*self._found.blamed(identity, field), reason, self._found.sources.get(identity, ""))
            for identity, field in places
        ]

    @staticmethod
    def is_node(refusal: str) -> bool:
        """Whether the engine refuses an expression."""
        match = _PLACE.match(refusal)
        return match is not None and match["list"] == "nodes"

    def _using(self, node: int) -> set[int]:
        """The node and all nodes above it; arguments come before who uses them."""
        using = {node}
        for above in range(node + 1, len(self._arguments)):
            if not using.isdisjoint(self._arguments[above]):
                using.add(above)
        return using
