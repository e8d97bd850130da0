"""MW001–MW003: objects that the manager would refuse."""

from __future__ import annotations

from collections.abc import Iterator

from meshwright.manager.analyze.finding import Finding, Severity, Subject
from meshwright.manager.model import review
from meshwright.manager.model.fault import Fault


def invalid(fault: Fault) -> Finding:
    """Return the finding for an object that can't be read."""
    remedy = "put this field right: nothing of a request with such an object is applied"
    return Finding("MW001", Severity.ERROR, fault.key, fault.field, fault.message, remedy)


def refused(subject: Subject) -> Iterator[Finding]:
    """Find objects that can't be in force together with the others."""
    for fault in review.review(subject.mesh, subject.objects, subject.existing).violations:
        if fault.field == "metadata.namespace":
            remedy = f"apply a Namespace {fault.key.namespace}, or name another"
            message = f"namespace {fault.key.namespace} doesn't exist"
            yield Finding("MW002", Severity.ERROR, fault.key, fault.field, message, remedy)
        else:
            remedy = "change one of the objects so that only one claims it"
            yield Finding("MW003", Severity.ERROR, fault.key, fault.field, fault.message, remedy)
