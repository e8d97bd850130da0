"""Compiled rules, kept from one configuration to the next: a change of a few rules among many costs those few.

One decision to know: a rule depends on handlers, instances and manifests; when any of those changed, all rules are
compiled again, so that nobody has to know what a rule took from which.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from meshwright.core.config.objects import Object
from meshwright.mixer.config.models import Rule
from meshwright.mixer.config.nodes import Nodes
from meshwright.mixer.config.violation import Identity

RULE = "rule"


@dataclass(frozen=True, slots=True)
class RulePart:
    """`chunk` is a serialized policy with this rule alone, whose numbers are those of the whole policy.

    `uses` are the nodes of its expressions with their fields, `references` the handlers and instances that it names.
    """

    rule: Rule
    chunk: bytes
    uses: tuple[tuple[int, Identity, str], ...]
    references: frozenset[Identity]


class RuleParts:
    """The parts of one configuration, and those of the one before."""

    def __init__(self) -> None:
        self._basis: object = None
        self._before: dict[Identity, RulePart] = {}
        self._now: dict[Identity, RulePart] = {}

    def begin(self, nodes: Nodes, objects: Mapping[Identity, Object], dropped: Iterable[Identity]) -> None:
        """Begin a configuration, of which everything but the rules is compiled."""
        others = {identity: each for identity, each in objects.items() if identity.kind != RULE}
        basis = (nodes, others, frozenset(identity for identity in dropped if identity.kind != RULE))
        self._before = self._now if basis == self._basis else {}
        self._basis, self._now = basis, {}

    def find(self, identity: Identity, rule: Rule) -> RulePart | None:
        """The part of a rule that is as it was."""
        part = self._before.get(identity)
        if part is None or part.rule is not rule:
            return None
        self._now[identity] = part
        return part

    def keep(self, identity: Identity, part: RulePart) -> RulePart:
        """Keep the part of a new or changed rule."""
        self._now[identity] = part
        return part
