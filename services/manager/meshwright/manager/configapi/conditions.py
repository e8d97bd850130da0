"""What is in force of an object, with the words of Gateway API where it has them: for our API and a cluster's statuses.

Accepted          the object is valid and in force        Accepted, Invalid, Conflicted, Pending, NotFound
ResolvedRefs      what it refers to exists                ResolvedRefs, RefNotFound, or a dialect's own word
Programmed        all proxies have acknowledged it        Programmed, Pending; Refused, with the proxy's words
Conflicted        another object says something else      Conflicted; only where it is so, in both
PartiallyInvalid  some of it has no effect                a dialect's own word; only where it is so
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from meshwright.core.config import Key
from meshwright.manager.configapi.acknowledged import Acknowledged, acknowledged
from meshwright.manager.configapi.catalogue import State
from meshwright.manager.configapi.refusals import complaining, refused
from meshwright.manager.model.fault import sentence
from meshwright.manager.model.meaning import Notice
from meshwright.manager.model.notices import CONFLICTED, notices

MAX_KEYS = 1_000
TYPES = ("Accepted", "ResolvedRefs", "Programmed", "Conflicted", "PartiallyInvalid")

_REFERENCES = ("RefNotFound", "BackendNotFound", "RefNotPermitted", "InvalidKind")


@dataclass(frozen=True, slots=True)
class Condition:
    """One statement about an object; `reason` is a word for programs, `message` a sentence for people."""

    type: str
    status: bool | None  # None: unknown
    reason: str
    message: str


def conditions(key: Key, state: State, proxies: Sequence[Any], unreachable: Sequence[str]) -> list[Condition]:
    """Say what is in force of one object; `proxies` are those of all replicas but the `unreachable`."""
    found = state.objects.get(key)
    if found is None:
        return [Condition("Accepted", status=False, reason="NotFound", message="there is no such object")]
    revision = state.revisions.get(key, 0)
    told = [
        Condition("Accepted", status=True, reason="Accepted", message=f"in force since revision {revision}"),
        *noticed(list(notices(state.mesh, [key]))),
    ]
    if not found.kind.owner:  # others' objects aren't for proxies
        known = acknowledged(proxies, revision, refused(state.mesh, key, complaining(proxies)))
        told.append(programmed(known, unreachable))
    return told


def noticed(found: Sequence[Notice]) -> list[Condition]:
    """Sort what is to be told about an object in force."""
    unresolved = [notice for notice in found if notice.reason in _REFERENCES]
    reason = unresolved[0].reason if unresolved else "ResolvedRefs"
    message = sentence(unresolved) if unresolved else "all that it refers to exists"
    told = [Condition("ResolvedRefs", not unresolved, reason, message)]
    conflicts = [notice for notice in found if notice.reason == CONFLICTED]
    if conflicts:
        told.append(Condition("Conflicted", status=True, reason=CONFLICTED, message=sentence(conflicts)))
    others = [notice for notice in found if notice not in unresolved and notice not in conflicts]
    if others:
        told.append(Condition("PartiallyInvalid", True, others[0].reason, sentence(others)))
    return told


def programmed(known: Acknowledged, unreachable: Sequence[str] = ()) -> Condition:
    """Say how far an object's revision has come; managers that are `unreachable` may have proxies without it."""
    if known.refusal:
        return Condition("Programmed", status=False, reason="Refused", message=known.refusal)
    complete = known.complete and not unreachable
    message = f"acknowledged by {known.have} of {known.proxies} proxies"
    message += f"; {known.error}" if known.error else ""
    message += f"; managers that don't answer: {', '.join(unreachable)}" if unreachable else ""
    return Condition("Programmed", complete, "Programmed" if complete else "Pending", message)
