"""MW601–MW603: access rules about identities that nobody has, and about workloads that don't exist."""

from __future__ import annotations

from collections.abc import Iterator

from meshwright.core.spiffe import workload_id
from meshwright.manager.analyze.finding import Finding, Severity, Subject
from meshwright.manager.model.access import Access
from meshwright.manager.model.mesh import Area
from meshwright.manager.model.routing import Text


def strangers(subject: Subject) -> Iterator[Finding]:
    """Find rules that name identities which no workload of the mesh has."""
    mesh = subject.mesh
    known = {
        workload_id(mesh.trust_domain, area.namespace, workload.service_account)
        for area in mesh.areas.values()
        for workload in area.workloads.values()
    }
    home = f"spiffe://{mesh.trust_domain}/"
    for area in mesh.areas.values():
        for access in area.meaning.access:
            if access.origin not in subject.objects:
                continue
            for identity in sorted(_named(access)):
                if identity.startswith(home) and identity not in known:
                    message = f"no workload has the identity {identity}: this lets nobody in and keeps nobody out"
                    remedy = "correct namespace or service account, or apply the workload"
                    yield Finding("MW601", Severity.WARNING, access.origin, "", message, remedy)
            for reference in sorted(_bindings(access)):
                bound = area.governed.bound.get(reference)
                if bound is None or not (bound.identities or bound.workloads):
                    message = f"nobody is meant by {reference[1]} of namespace {reference[0]}"
                    remedy = "correct the name, or apply an object that says whom it means"
                    yield Finding("MW602", Severity.WARNING, access.origin, "", message, remedy)


def unguarded(subject: Subject) -> Iterator[Finding]:
    """Find rules that select no workload."""
    for area in subject.mesh.areas.values():
        for access in area.meaning.access:
            if access.origin in subject.objects and not _selects_any(subject, area, access):
                message = "selects no workload: nothing is enforced by it"
                remedy = "correct the selector, or apply the workload"
                yield Finding("MW603", Severity.WARNING, access.origin, "", message, remedy)


def _selects_any(subject: Subject, area: Area, access: Access) -> bool:
    areas = subject.mesh.areas.values() if area.namespace == subject.mesh.root_namespace else (area,)
    return any(
        all(workload.labels.get(name) == value for name, value in access.selector)
        and (not access.accounts or workload.service_account in access.accounts)
        for each in areas
        for workload in each.workloads.values()
    )


def _named(access: Access) -> set[str]:
    callers = [each for rule in access.rules for each in rule.callers]
    texts = [text for each in callers for text in (*each.identities, *each.not_identities)]
    return {text.value for text in texts if text.kind is Text.EXACT and not text.negated}


def _bindings(access: Access) -> set[tuple[str, str]]:
    return {reference for rule in access.rules for callers in rule.callers for reference in callers.bindings}
