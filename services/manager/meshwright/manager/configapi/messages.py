"""Between the API's messages and ours: protobuf stops at the servicer."""

from __future__ import annotations

from typing import Any

from meshwright.api.config.v1 import config_pb2
from meshwright.core.config import Key
from meshwright.core.config.history import Change, Difference, Revision
from meshwright.manager.analyze.finding import Finding
from meshwright.manager.configapi.plan import Action
from meshwright.manager.configapi.preview import ResourceChange
from meshwright.manager.configapi.terms import Expectation, Outcome
from meshwright.manager.explain.route import Explanation
from meshwright.manager.model.fault import Fault
from meshwright.manager.model.parse import Parsed

_ACTIONS = {
    Action.CREATED: config_pb2.ApplyResponse.CREATED,
    Action.CHANGED: config_pb2.ApplyResponse.CHANGED,
    Action.UNCHANGED: config_pb2.ApplyResponse.UNCHANGED,
    Action.DELETED: config_pb2.ApplyResponse.DELETED,
}
_MAX_CHANGES = 1_000  # of one revision in a list


def key(message: Any) -> Key:
    """Read a key."""
    return Key(message.api_version, message.kind, message.namespace, message.name)


def key_message(found: Key) -> Any:
    """Write a key."""
    return config_pb2.Key(api_version=found.api_version, kind=found.kind, namespace=found.namespace, name=found.name)


def object_message(parsed: Parsed, revision: int = 0) -> Any:
    """Write an object."""
    return config_pb2.Object(key=key_message(parsed.key), json=parsed.text, revision=revision)


def result_message(found: Key, action: Action) -> Any:
    """Write what happened to an object."""
    return config_pb2.ApplyResponse.Result(key=key_message(found), action=_ACTIONS[action])


def violation_message(fault: Fault) -> Any:
    """Write a fault."""
    return config_pb2.Violation(key=key_message(fault.key), field=fault.field, message=fault.message, index=fault.index)


def expectation(message: Any) -> Expectation:
    """Read what the caller takes for the present."""
    newest = message.revision if message.HasField("revision") else None
    return Expectation(newest, tuple((key(found.key), found.revision) for found in message.objects))


def fill(response: Any, outcome: Outcome) -> Any:
    """Write what a request did into an ApplyResponse or DeleteResponse."""
    plan = outcome.plan
    response.revision = outcome.revision
    response.violations.extend(map(violation_message, plan.findings.violations))
    response.warnings.extend(map(violation_message, plan.findings.warnings))
    if not plan.findings.violations:
        response.results.extend(result_message(key, action) for key, action in plan.results)
    response.resources.extend(map(resource_message, outcome.preview.changes))
    response.resources_left_out = outcome.preview.left_out
    return response


def resource_message(change: ResourceChange) -> Any:
    """Write a resource that proxies would be sent."""
    return config_pb2.ResourceChange(
        type_url=change.type_url,
        name=change.name,
        action=_ACTIONS[change.action],
        proxies=change.proxies,
        diff=change.diff,
    )


def revision_message(revision: Revision) -> Any:
    """Write a revision of the history."""
    commit = revision.commit
    return config_pb2.HistoryResponse.Revision(
        revision=commit.revision,
        author=commit.author,
        time=commit.time,
        message=commit.message,
        changes=[result_message(found, Action[change.name]) for found, change in revision.changes[:_MAX_CHANGES]],
        changed=len(revision.changes),
    )


def difference_message(difference: Difference) -> Any:
    """Write how an object differs."""
    before, after = difference.before, difference.after
    change = Change.CHANGED if before and after else Change.CREATED if after else Change.DELETED
    return config_pb2.DiffResponse.ObjectDiff(
        key=key_message(difference.key), action=_ACTIONS[Action[change.name]], before=before or "", after=after or ""
    )


def finding_message(finding: Finding, index: int) -> Any:
    """Write what an analysis found."""
    return config_pb2.AnalyzeResponse.Finding(
        code=finding.code,
        severity=finding.severity.name.lower(),
        key=key_message(finding.key),
        field=finding.field,
        message=finding.message,
        remedy=finding.remedy,
        index=index,
    )


def explanation_message(found: Explanation, revision: int) -> Any:
    """Write why a request goes where it goes."""
    response = config_pb2.ExplainRouteResponse
    return response(
        revision=revision,
        host=found.host,
        port=found.port,
        steps=[response.Step(route=step.route, taken=step.taken, reasons=step.reasons) for step in found.steps],
        answer=found.answer,
        destinations=[
            response.Destination(host=share.host, port=share.port, percent=share.percent, detail=share.detail)
            for share in found.shares
        ],
    )
