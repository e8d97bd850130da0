"""All families in order, over a mesh as it is, or as it would be with some documents applied."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from meshwright.core.config import Key
from meshwright.manager.analyze import identities, reachability, references, services, validity, weights
from meshwright.manager.analyze.finding import Finding, Subject
from meshwright.manager.configapi.catalogue import State
from meshwright.manager.model import kinds, mesh, parse, review
from meshwright.manager.model.fault import Fault
from meshwright.manager.model.mesh import Mesh

MAX_FINDINGS = 5_000

FAMILIES: Sequence[Callable[[Subject], Iterator[Finding]]] = (
    validity.refused,
    references.noticed,
    references.subsets,
    references.gateways,
    references.silent,
    reachability.shadowed,
    weights.shares,
    services.unanswered,
    services.unreached,
    identities.strangers,
    identities.unguarded,
)


@dataclass(frozen=True, slots=True)
class Analysis:
    """What was found, the worst first; `left_out`: there is more. `places` are those of the documents, by key."""

    findings: tuple[Finding, ...]
    left_out: bool
    places: Mapping[Key, int]


def offline(documents: Sequence[tuple[Key | None, str]], empty: Mesh = mesh.EMPTY) -> Analysis:
    """Analyze documents alone: namespaces exist, because nobody says which there are, unless one of them does."""
    parsed = [parse.parse(text, place, given) for place, (given, text) in enumerate(documents)]
    named = {found.key for found in parsed if isinstance(found, parse.Parsed)}
    if not any(key.kind == kinds.NAMESPACE.name for key in named):
        return _analyze(parsed, State(mesh=empty), frozenset(key.namespace for key in named))
    return _analyze(parsed, State(mesh=empty), frozenset())


def live(documents: Sequence[tuple[Key | None, str]], state: State) -> Analysis:
    """Analyze a state as it would be with documents applied, or as it is without any."""
    parsed = [parse.parse(text, place, given) for place, (given, text) in enumerate(documents)]
    return _analyze(parsed, state, frozenset(state.discovered))


def _analyze(parsed: Sequence[parse.Parsed | list[Fault]], state: State, existing: frozenset[str]) -> Analysis:
    read = {found.key: found for found in parsed if isinstance(found, parse.Parsed)}
    found = [validity.invalid(fault) for faults in parsed if isinstance(faults, list) for fault in faults]
    places = {each.key: place for place, each in enumerate(parsed) if isinstance(each, parse.Parsed)}
    places |= {faults[0].key: place for place, faults in enumerate(parsed) if isinstance(faults, list)}
    objects = {**state.objects, **read} if read else state.objects
    whole = state.built(state.revision + 1, objects) if read else state.mesh
    subject = Subject(whole, objects, existing | review.namespaces(objects))
    told = {*found}
    for family in FAMILIES:
        for finding in family(subject):
            if finding not in told:
                told.add(finding)
                found.append(finding)
    found.sort(key=lambda each: (each.severity, each.key, each.code, each.field))
    return Analysis(tuple(found[:MAX_FINDINGS]), len(found) > MAX_FINDINGS, places)
