"""What a custom resource's status says: conditions, with the words of Gateway API where it has them.

Accepted          the object is valid and in force        Accepted, Invalid, Conflicted, Pending
ResolvedRefs      what it refers to exists                ResolvedRefs, RefNotFound, or a dialect's own word
Programmed        all proxies have acknowledged it        Programmed, Pending
Conflicted        another object says something else      Conflicted; only where it is so, in both
PartiallyInvalid  some of it has no effect                a dialect's own word; only where it is so
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meshwright.manager.model.fault import Fault
from meshwright.manager.model.meaning import Notice
from meshwright.manager.model.notices import CONFLICTED
from meshwright.manager.sources.kubernetes.admission import Verdict, sentence
from meshwright.manager.sources.kubernetes.candidate import Candidate

OURS = ("Accepted", "ResolvedRefs", "Programmed", "Conflicted", "PartiallyInvalid")
_REFERENCES = ("RefNotFound", "BackendNotFound", "RefNotPermitted", "InvalidKind")

_MAX_MESSAGE = 2_000
_STATUS = {True: "True", False: "False", None: "Unknown"}


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """How far a revision has come: of `proxies` those in `have` have it; `error` is a proxy's complaint."""

    have: int
    proxies: int
    error: str = ""

    @property
    def complete(self) -> bool:
        """Whether nobody is waited for."""
        return self.have >= self.proxies


@dataclass(frozen=True, slots=True)
class Standing:
    """All that is to be said of one object; no `acknowledged`: that isn't known yet, or no proxy's matter."""

    verdict: Verdict
    notices: Sequence[Notice] = ()
    acknowledged: Acknowledged | None = None


def conditions(candidate: Candidate, standing: Standing, now: str) -> list[dict[str, Any]]:
    """Return all conditions as they should be, others' unchanged; a time changes only when its condition does."""
    verdict = standing.verdict
    wanted = [("Accepted", verdict.accepted, verdict.reason, verdict.message)]
    if verdict.accepted:
        unresolved = [notice for notice in standing.notices if notice.reason in _REFERENCES]
        reason = unresolved[0].reason if unresolved else "ResolvedRefs"
        message = _sentence(unresolved) if unresolved else "all that it refers to exists"
        wanted.append(("ResolvedRefs", not unresolved, reason, message))
        conflicts = [notice for notice in standing.notices if notice.reason == CONFLICTED]
        if conflicts:
            wanted.append(("Conflicted", True, CONFLICTED, _sentence(conflicts)))
        others = [notice for notice in standing.notices if notice not in unresolved and notice not in conflicts]
        if others:
            wanted.append(("PartiallyInvalid", True, others[0].reason, _sentence(others)))
        if known := standing.acknowledged:
            message = f"acknowledged by {known.have} of {known.proxies} proxies"
            message += f"; {known.error}" if known.error else ""
            reason = "Programmed" if known.complete else "Pending"
            wanted.append(("Programmed", known.complete, reason, message))
    foreign = [dict(found) for name, found in candidate.conditions.items() if name not in OURS]
    return [*(_condition(candidate, *condition, now) for condition in wanted), *foreign]


def _sentence(notices: Sequence[Notice]) -> str:
    faults = (Fault(notice.key, notice.field, notice.message) for notice in notices)
    return sentence(faults)


def _condition(
    candidate: Candidate, name: str, value: bool | None, reason: str, message: str, now: str
) -> dict[str, Any]:
    before = candidate.conditions.get(name, {})
    status = _STATUS[value]
    return {
        "type": name,
        "status": status,
        "observedGeneration": candidate.generation,
        "lastTransitionTime": before.get("lastTransitionTime", now) if before.get("status") == status else now,
        "reason": reason,
        "message": message[:_MAX_MESSAGE],
    }


def differ(candidate: Candidate, wanted: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the status has to be written."""
    return candidate.conditions != {condition["type"]: condition for condition in wanted}


def flips(candidate: Candidate, wanted: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether more than the wording of a message differs."""

    def essence(found: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
        fields = ("status", "reason", "observedGeneration")
        return {name: tuple(condition.get(field) for field in fields) for name, condition in found.items()}

    return essence(candidate.conditions) != essence({condition["type"]: condition for condition in wanted})


def programmed(candidate: Candidate) -> bool:
    """Return whether the status says already that all proxies have this generation."""
    known = candidate.conditions.get("Programmed", {})
    return known.get("status") == "True" and known.get("observedGeneration") == candidate.generation
