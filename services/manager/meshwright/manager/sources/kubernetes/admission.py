"""Which custom resources come into force, and what is to be said about the others.

One decision to know: what is admitted depends on the objects that are there and on nothing else, neither on the order
in which they came nor on what was in force before. One that is wrong is left out by itself; of two that claim the same
thing the older one has it, as in Gateway API. While a kind's owner can't be asked, nothing of that kind changes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from meshwright.core import config, errors
from meshwright.core.config import Key
from meshwright.manager.configapi.plan import MAX_OBJECTS, Plan
from meshwright.manager.model import kinds, mesh, parse, resolution
from meshwright.manager.model.fault import Fault, Findings, sentence
from meshwright.manager.smi.traffic_split import TrafficSplit
from meshwright.manager.sources.kubernetes.candidate import Candidate

Judge = Callable[[Plan], Awaitable[Findings]]
"""Asks the owners of what a plan puts; raises Unavailable when one can't be asked."""

_ROUNDS = 20  # of asking an owner again without what it refused


@dataclass(frozen=True, slots=True)
class Verdict:
    """A reason is a word for programs, a message a sentence for people."""

    accepted: bool | None  # None: nobody can say at the moment
    reason: str
    message: str


ACCEPTED = Verdict(True, "Accepted", "the mesh follows this object")


@dataclass(slots=True)
class Admission:
    """`undecided` are owners that couldn't be asked: what the store has of their kinds stays."""

    objects: dict[Key, parse.Parsed] = field(default_factory=dict)
    verdicts: dict[Key, Verdict] = field(default_factory=dict)
    undecided: set[str] = field(default_factory=set)

    def refuse(self, key: Key, reason: str, message: str) -> None:
        """Leave an object out."""
        self.objects.pop(key, None)
        self.verdicts[key] = Verdict(False, reason, message)


class Admissions:
    """Admits whole sets of candidates; equal texts are parsed once."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._parsed: dict[Key, tuple[str, parse.Parsed | list[Fault]]] = {}

    async def admit(self, candidates: Mapping[Key, Candidate]) -> Admission:
        """Decide about all of them."""
        admission = Admission()
        self._parsed = {key: self._parse(key, candidate.text) for key, candidate in candidates.items()}
        for key, (_, result) in self._parsed.items():
            if isinstance(result, parse.Parsed):
                admission.objects[key] = result
                admission.verdicts[key] = ACCEPTED
            else:
                admission.refuse(key, "Invalid", sentence(result))
        for key in sorted(admission.objects, key=lambda key: candidates[key].age)[MAX_OBJECTS:]:
            admission.refuse(key, "Invalid", f"there are {MAX_OBJECTS} older objects, and no more are taken")
        _settle_splits(admission, candidates)
        _settle_sidecars(admission, candidates)
        for owner in sorted({found.kind.owner for found in admission.objects.values()} - {""}):
            await self._ask(owner, admission)
        return admission

    def _parse(self, key: Key, text: str) -> tuple[str, parse.Parsed | list[Fault]]:
        known = self._parsed.get(key)
        return known if known is not None and known[0] == text else (text, _parse(key, text))

    async def _ask(self, owner: str, admission: Admission) -> None:
        """Let an owner judge all objects of its kinds together, and again without those that it refused."""
        for _ in range(_ROUNDS):
            asked = {key: found for key, found in admission.objects.items() if found.kind.owner == owner}
            if not asked:
                return
            plan = Plan(put=asked, results=[], after=asked)
            try:
                findings = await self._judge(plan)
            except errors.MeshwrightError as error:
                self._postpone(owner, str(error), admission)
                return
            by_key: dict[Key, list[Fault]] = defaultdict(list)
            for fault in findings.violations:
                by_key[fault.key].append(fault)
            refused = by_key.keys() & asked.keys()
            if not refused:
                if findings.violations:  # it refuses the whole without naming one of them
                    self._postpone(owner, sentence(findings.violations), admission)
                return
            for key in refused:
                admission.refuse(key, "Invalid", sentence(by_key[key]))
        self._postpone(owner, f"{owner} refused others in each of {_ROUNDS} rounds", admission)

    @staticmethod
    def _postpone(owner: str, reason: str, admission: Admission) -> None:
        admission.undecided.add(owner)
        for key, found in [*admission.objects.items()]:
            if found.kind.owner == owner:
                del admission.objects[key]
                admission.verdicts[key] = Verdict(None, "Pending", reason)


def _parse(key: Key, text: str) -> parse.Parsed | list[Fault]:
    """Parse a document, and let it pass the limits of all who will read it from the store."""
    try:
        config.from_json(text, "the cluster")
    except errors.ConfigError as error:
        return [Fault(key, error.field, error.message)]
    return parse.parse(text, -1, key)


def _settle_splits(admission: Admission, candidates: Mapping[Key, Candidate]) -> None:
    """Let one split have a service's requests that the same groups match; others go beside it."""
    claims: dict[tuple[str, str, frozenset[str]], list[Key]] = defaultdict(list)
    for key, found in admission.objects.items():
        if isinstance(found.document, TrafficSplit):
            claims[key.namespace, found.document.root, found.document.groups].append(key)
    for (_, service, _), keys in claims.items():
        eldest, *others = sorted(keys, key=lambda key: candidates[key].age)
        for key in others:
            message = f"spec.service: service {service} is already split by {eldest.name}, which is older"
            admission.refuse(key, "Conflicted", message)


def _settle_sidecars(admission: Admission, candidates: Mapping[Key, Candidate]) -> None:
    """Let one Sidecar have each workload; taking one away may settle others too, so it is looked at again."""
    while True:
        built = resolution.build(0, admission.objects, ({}, mesh.EMPTY))
        pairs = (
            (area.namespace, workload, names)
            for area in built.areas.values()
            for workload, names in sorted(area.sidecars_of.items())
        )
        clash = next((pair for pair in pairs if len(pair[2]) > 1), None)
        if clash is None:
            return
        namespace, workload, names = clash
        kind = kinds.SIDECAR
        keys = [Key(kind.api_version, kind.name, namespace, name) for name in names]
        *_, youngest = sorted(keys, key=lambda key: candidates[key].age)
        others = ", ".join(key.name for key in keys if key != youngest)
        message = f"spec.workloadSelector: workload {workload} is already selected by {others}, which is older"
        admission.refuse(youngest, "Conflicted", message)
