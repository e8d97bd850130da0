"""What a custom resource's status says: the conditions of `configapi.conditions`, as Kubernetes writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meshwright.manager.configapi.acknowledged import Acknowledged
from meshwright.manager.configapi.conditions import TYPES, Condition, noticed
from meshwright.manager.configapi.conditions import programmed as programmed_by
from meshwright.manager.model.meaning import Notice
from meshwright.manager.sources.kubernetes.admission import Verdict
from meshwright.manager.sources.kubernetes.candidate import Candidate

_MAX_MESSAGE = 2_000
_STATUS = {True: "True", False: "False", None: "Unknown"}


@dataclass(frozen=True, slots=True)
class Standing:
    """All that is to be said of one object; no `acknowledged`: that isn't known yet, or no proxy's matter."""

    verdict: Verdict
    notices: Sequence[Notice] = ()
    acknowledged: Acknowledged | None = None


def conditions(candidate: Candidate, standing: Standing, now: str) -> list[dict[str, Any]]:
    """Return all conditions as they should be, others' unchanged; a time changes only when its condition does."""
    verdict = standing.verdict
    wanted = [Condition("Accepted", verdict.accepted, verdict.reason, verdict.message)]
    if verdict.accepted:
        wanted += noticed(standing.notices)
        if standing.acknowledged:
            wanted.append(programmed_by(standing.acknowledged))
    foreign = [dict(found) for name, found in candidate.conditions.items() if name not in TYPES]
    return [*(_condition(candidate, condition, now) for condition in wanted), *foreign]


def _condition(candidate: Candidate, told: Condition, now: str) -> dict[str, Any]:
    before = candidate.conditions.get(told.type, {})
    status = _STATUS[told.status]
    return {
        "type": told.type,
        "status": status,
        "observedGeneration": candidate.generation,
        "lastTransitionTime": before.get("lastTransitionTime", now) if before.get("status") == status else now,
        "reason": told.reason,
        "message": told.message[:_MAX_MESSAGE],
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
