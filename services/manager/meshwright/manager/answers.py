"""What the manager's configuration API answers, as plain values, and what it is told: protobuf stops here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from meshwright.api.config.v1 import config_pb2
from meshwright.core.config import Key, Object, from_json
from meshwright.manager.analyze.finding import Finding, Severity
from meshwright.manager.errors import Problem, Refused
from meshwright.manager.explain.route import Explanation, Share, Step

Preview = Literal["none", "names", "text"]
"""How much a dry run says of the resources that proxies would be sent."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a request did: for each object, in order, what happened to it."""

    revision: int
    results: tuple[tuple[Key, str], ...]  # created, changed, unchanged, deleted
    warnings: tuple[Problem, ...] = ()
    resources: tuple[Resource, ...] = ()  # what proxies would be sent, of a dry run that asked for it
    resources_left_out: bool = False


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource that a change would create, change or delete at `proxies` proxies; `diff` where it was asked for."""

    type_url: str
    name: str
    action: str
    proxies: int
    diff: str


@dataclass(frozen=True, slots=True)
class Expectation:
    """What the caller takes for the present: the newest revision, and which changed an object last (0: none).

    What is otherwise makes a Conflict that says who changed it when.
    """

    revision: int | None = None
    objects: Mapping[Key, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision of the history; `changes` are 1,000 at most, of `changed`."""

    revision: int
    author: str
    time: str
    message: str
    changes: tuple[tuple[Key, str], ...]
    changed: int


@dataclass(frozen=True, slots=True)
class ObjectDiff:
    """How one object differs between two revisions; None: it isn't there."""

    key: Key
    action: str
    before: Object | None
    after: Object | None


@dataclass(frozen=True, slots=True)
class Event:
    """What one revision changed; None: deleted. Watch after `revision` to go on."""

    revision: int
    author: str
    time: str
    message: str
    changes: Mapping[Key, Object | None]


@dataclass(frozen=True, slots=True)
class Condition:
    """One statement about an object: Accepted, ResolvedRefs or Programmed."""

    type: str
    status: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class TypeStatus:
    """One type of resources at one proxy."""

    type_url: str
    sent_version: str
    acknowledged_version: str
    error: str


@dataclass(frozen=True, slots=True)
class ProxyStatus:
    """One connected proxy."""

    node_id: str
    spiffe_id: str
    acknowledged_revision: int
    manager: str
    types: tuple[TypeStatus, ...]

    @property
    def workload(self) -> str:
        """The workload's name with its namespace: ``shop-0.default``."""
        parts = self.node_id.split("~")
        return parts[2] if len(parts) > 2 else self.node_id

    @property
    def error(self) -> str:
        """The reason of what the proxy refuses at the moment; empty when it refuses nothing."""
        return "; ".join(f"{state.type_url.rpartition('.')[2]}: {state.error}" for state in self.types if state.error)


@dataclass(frozen=True, slots=True)
class Status:
    """The newest revision and all connected proxies; `unreachable` names replicas whose proxies are missing."""

    revision: int
    proxies: tuple[ProxyStatus, ...]
    unreachable: tuple[str, ...] = field(default=())

    def behind(self, revision: int) -> tuple[ProxyStatus, ...]:
        """Return the proxies that haven't acknowledged `revision`."""
        return tuple(proxy for proxy in self.proxies if proxy.acknowledged_revision < revision)

    def lacking(self, revision: int, proxies: int = 0) -> str:
        """Say what is missing until at least `proxies` have acknowledged `revision`, and who; empty: nothing is."""
        behind = self.behind(revision)
        if self.revision >= revision and len(self.proxies) >= proxies and not self.unreachable and not behind:
            return ""
        text = f"revision {revision} isn't acknowledged"
        if self.revision < revision:
            text += f": the manager's newest is {self.revision}"
        if len(self.proxies) < proxies:
            text += f": {len(self.proxies)} of {proxies} proxies are connected"
        for late in behind[:5]:
            text += f"; {late.workload} is at {late.acknowledged_revision}" + (f" ({late.error})" if late.error else "")
        if len(behind) > 5:
            text += f"; and {len(behind) - 5} more"
        if self.unreachable:
            text += f"; replicas that don't answer: {', '.join(self.unreachable)}"
        return text


def key_message(key: Key) -> Any:
    """Write a key."""
    return config_pb2.Key(api_version=key.api_version, kind=key.kind, namespace=key.namespace, name=key.name)


def key(message: Any) -> Key:
    """Read a key."""
    return Key(message.api_version, message.kind, message.namespace, message.name)


def outcome(answer: Any, sources: Sequence[str]) -> Outcome:
    """Read what a request did; raise Refused with its faults."""
    if answer.violations:
        raise Refused(problems(answer.violations, sources))
    actions = config_pb2.ApplyResponse.Action
    results = tuple((key(result.key), actions.Name(result.action).lower()) for result in answer.results)
    resources = tuple(
        Resource(found.type_url, found.name, actions.Name(found.action).lower(), found.proxies, found.diff)
        for found in answer.resources
    )
    warnings = problems(answer.warnings, sources)
    return Outcome(answer.revision, results, warnings, resources, answer.resources_left_out)


def revision(message: Any) -> Revision:
    """Read a revision of the history."""
    actions = config_pb2.ApplyResponse.Action
    changes = tuple((key(change.key), actions.Name(change.action).lower()) for change in message.changes)
    return Revision(message.revision, message.author, message.time, message.message, changes, message.changed)


def object_diff(message: Any) -> ObjectDiff:
    """Read how an object differs."""
    before, after = (from_json(text, "the history") if text else None for text in (message.before, message.after))
    action = config_pb2.ApplyResponse.Action.Name(message.action).lower()
    return ObjectDiff(key(message.key), action, before, after)


def expectation(expected: Expectation | None) -> Any:
    """Write what the caller takes for the present."""
    if expected is None:
        return None
    objects = [
        config_pb2.Expectation.ObjectRevision(key=key_message(key), revision=revision)
        for key, revision in expected.objects.items()
    ]
    return config_pb2.Expectation(revision=expected.revision, objects=objects)


def problems(violations: Iterable[Any], sources: Sequence[str]) -> tuple[Problem, ...]:
    """Read faults or warnings; `sources` are those of the request's objects."""
    return tuple(
        Problem(
            key(violation.key),
            violation.field,
            violation.message,
            sources[violation.index] if 0 <= violation.index < len(sources) else "",
        )
        for violation in violations
    )


def proxy(message: Any) -> ProxyStatus:
    """Read one proxy's status."""
    return ProxyStatus(
        message.node_id,
        message.spiffe_id,
        message.acknowledged_revision,
        message.manager,
        tuple(
            TypeStatus(state.type_url, state.sent_version, state.acknowledged_version, state.error)
            for state in message.types
        ),
    )


def status(message: Any) -> Status:
    """Read what proxies have acknowledged."""
    return Status(message.revision, tuple(map(proxy, message.proxies)), tuple(message.unreachable))


def findings(answer: Any, sources: Sequence[str]) -> list[tuple[Finding, str]]:
    """Read what an analysis found, each with the document that it is about, where that was in the request."""
    return [
        (
            Finding(each.code, Severity[each.severity.upper()], key(each.key), each.field, each.message, each.remedy),
            sources[each.index] if 0 <= each.index < len(sources) else "",
        )
        for each in answer.findings
    ]


def explanation(answer: Any) -> Explanation:
    """Read why a request goes where it goes."""
    return Explanation(
        answer.host,
        answer.port,
        tuple(Step(step.route, step.taken, tuple(step.reasons)) for step in answer.steps),
        answer.answer,
        tuple(Share(each.host, each.port, each.percent, each.detail) for each in answer.destinations),
    )
