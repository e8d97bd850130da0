"""What a request would do: judged against the present state, without doing it. Pure, so every rule has its test."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from meshwright.core import errors
from meshwright.core.config import Key
from meshwright.manager.configapi.catalogue import State
from meshwright.manager.model import kinds, mesh, notices, parse, review
from meshwright.manager.model.domain import host_of
from meshwright.manager.model.fault import Fault, Findings

MAX_OBJECT_BYTES = 1 << 20
MAX_REQUEST_BYTES = 7 << 20  # below the transport's limit, so that the answer is a sentence
MAX_REQUEST_OBJECTS = 10_000
MAX_OBJECTS = 100_000


Owned = Callable[[kinds.Kind], bool]
"""Says whether objects of a kind belong to a cluster, which the mesh only follows."""


def nobodys(_: kinds.Kind) -> bool:
    """There is no cluster: every kind is the mesh's own."""
    return False


class Action(Enum):
    """What happens to an object."""

    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    DELETED = "deleted"


@dataclass(slots=True)
class Plan:
    """A request's consequences. With `findings.violations` nothing of it may be committed."""

    put: dict[Key, parse.Parsed] = field(default_factory=dict)
    delete: set[Key] = field(default_factory=set)
    results: list[tuple[Key, Action]] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    after: Mapping[Key, parse.Parsed] = field(default_factory=dict)

    def mesh(self, state: State) -> mesh.Mesh:
        """Return the mesh as it would be, one revision after `state`."""
        return state.built(state.revision + 1, self.after)

    def owned(self) -> dict[str, tuple[list[Key], list[Key]]]:
        """Return, for each owner that must be asked, the keys put and the keys deleted."""
        asked: dict[str, tuple[list[Key], list[Key]]] = {}
        for position, keys in enumerate((list(self.put), sorted(self.delete))):
            for key in keys:
                kind = kinds.find(key.api_version, key.kind)
                if kind and kind.owner:
                    asked.setdefault(kind.owner, ([], []))[position].append(key)
        return asked


def apply(documents: Sequence[tuple[Key | None, str]], state: State, owned: Owned = nobodys) -> Plan:
    """Plan to put documents, given as the key that the request claims and the JSON text.

    Objects of kinds that are `owned` by a cluster are refused: they are changed there.
    """
    check_size([text for _, text in documents])
    return _put(documents, state, owned)


def rollback(texts: Mapping[Key, str], gone: Collection[Key], state: State, owned: Owned = nobodys) -> Plan:
    """Plan to give objects the texts of an earlier revision again, and to delete those that it hadn't."""
    mirrored = [key for key in gone if owned(state.objects[key].kind) and state.objects[key].mirrored]
    plan = _put(list(texts.items()), state, owned, gone)
    plan.findings.violations += [
        Fault(key, "", "was taken from the cluster since: use 'kubectl delete', which the mesh follows")
        for key in sorted(mirrored)
    ]
    plan.results += [(key, Action.DELETED) for key in sorted(gone)]
    plan.findings.warnings += _left_behind(sorted(gone), plan, state.mesh)
    return plan


def _put(documents: Sequence[tuple[Key | None, str]], state: State, owned: Owned, gone: Collection[Key] = ()) -> Plan:
    plan = Plan(after=state.objects, delete={*gone})
    places: dict[Key, int] = {}
    for index, (given, text) in enumerate(documents):
        size = len(text.encode())
        if size > MAX_OBJECT_BYTES:
            message = f"the object has {size} bytes: at most {MAX_OBJECT_BYTES} (1 MiB) are taken"
            plan.findings.violations.append(Fault(given or Key("", "", "", ""), "", message, index))
            continue
        parsed = parse.parse(text, index, given)
        if not isinstance(parsed, parse.Parsed):
            plan.findings.violations += parsed
        elif owned(parsed.kind):
            message = f"{parsed.kind.name} objects belong to the cluster: use 'kubectl apply', which the mesh follows"
            plan.findings.violations.append(Fault(parsed.key, "kind", message, index))
        elif parsed.key in places:
            message = f"is in this request twice, as documents {places[parsed.key] + 1} and {index + 1}: keep one"
            plan.findings.violations.append(Fault(parsed.key, "metadata.name", message, index))
        else:
            places[parsed.key] = index
            before = state.objects.get(parsed.key)
            same = before is not None and before.text == parsed.text
            plan.results.append((parsed.key, _action(before, same=same)))
            if not same:
                plan.put[parsed.key] = parsed
    if plan.findings.violations:
        return plan
    kept = {key: found for key, found in state.objects.items() if key not in plan.delete}
    plan.after = {**kept, **plan.put}
    if len(plan.after) > MAX_OBJECTS:
        raise errors.Exhausted(f"there would be {len(plan.after)} objects: at most {MAX_OBJECTS} are kept")
    # Also unchanged objects are looked at: a warning is worth repeating to who applies its cause again.
    changed = {key: plan.after[key] for key in places}
    found = review.review(plan.mesh(state), changed, review.namespaces(plan.after) | {*state.discovered})
    plan.findings.violations = [_placed(fault, places) for fault in found.violations]
    plan.findings.warnings = [_placed(fault, places) for fault in found.warnings]
    plan.findings.violations += _emptied(plan, ())
    return plan


def delete(keys: Sequence[Key], state: State, *, ignore_missing: bool, owned: Owned = nobodys) -> Plan:
    """Plan to delete objects; those that were taken from a cluster are deleted there."""
    check_size([str(key) for key in keys])
    plan = Plan()
    for index, given in enumerate(keys):
        key, fault = _deletable(given, state, ignore_missing=ignore_missing)
        found = state.objects.get(key)
        if found is not None and owned(found.kind) and found.mirrored:
            fault = "was taken from the cluster: use 'kubectl delete', which the mesh follows"
        if fault:
            plan.findings.violations.append(Fault(key, "", fault, index))
        elif key in state.objects:
            plan.delete.add(key)
            plan.results.append((key, Action.DELETED))
        else:
            plan.results.append((key, Action.UNCHANGED))
    plan.after = {key: found for key, found in state.objects.items() if key not in plan.delete}
    plan.findings.violations += _emptied(plan, keys)
    plan.findings.warnings += _left_behind(keys, plan, state.mesh)
    return plan


def _emptied(plan: Plan, keys: Sequence[Key]) -> Iterator[Fault]:
    """Refuse to delete namespaces that something is in."""
    for key in plan.delete:
        if (key.api_version, key.kind) == (kinds.NAMESPACE.api_version, kinds.NAMESPACE.name):
            inside = sorted(str(other) for other in plan.after if other.namespace == key.name)
            if inside:
                some = ", ".join(inside[:3]) + (f" and {len(inside) - 3} more" if len(inside) > 3 else "")
                message = f"namespace {key.name} holds {some}: delete them first or in the same request"
                yield Fault(key, "", message, _place(key, keys))


def named(given: Key) -> Key | None:
    """Return the whole key of an object that a person names; None when there is no such kind."""
    kind = kinds.find(given.api_version, given.kind)
    if kind is None and not given.api_version:
        kind = next((known for known in kinds.KINDS if known.name.lower() == given.kind.lower()), None)
    if kind is None:
        return None
    return Key(kind.api_version, kind.name, given.namespace or "default" if kind.namespaced else "", given.name)


def _deletable(given: Key, state: State, *, ignore_missing: bool) -> tuple[Key, str]:
    key = named(given)
    if key is None:
        near = kinds.nearest(given.api_version, given.kind)
        hint = f"did you mean {near}?" if near else f"there are {', '.join(map(str, kinds.KINDS))}"
        return given, f"unknown kind {given.kind} ({given.api_version}): {hint}"
    if key.kind == kinds.NAMESPACE.name and key.name in review.PERMANENT:
        return key, f"namespace {key.name} is always there and can't be deleted"
    if key not in state.objects and not ignore_missing:
        return key, f"{key} doesn't exist: list what there is with 'meshwright get {key.kind}'"
    return key, ""


def _left_behind(keys: Sequence[Key], plan: Plan, before: mesh.Mesh) -> list[Fault]:
    faults = []
    for service in sorted(plan.delete):
        if (service.api_version, service.kind) == (kinds.SERVICE.api_version, kinds.SERVICE.name):
            host = host_of(service.name, service.namespace)
            for key in sorted({*notices.referrers(before, host)} - plan.delete):
                message = f"{key} refers to it: requests for it fail until one of both is put right"
                faults.append(Fault(service, "", message, _place(service, keys)))
    return faults


def _place(key: Key, keys: Sequence[Key]) -> int:
    return next((place for place, other in enumerate(keys) if (other.kind, other.name) == (key.kind, key.name)), -1)


def check_size(texts: Sequence[str]) -> None:
    """Raise Exhausted for more than one request may have."""
    if len(texts) > MAX_REQUEST_OBJECTS:
        raise errors.Exhausted(f"{len(texts)} objects in one request: at most {MAX_REQUEST_OBJECTS} are taken")
    total = sum(len(text) for text in texts)
    if total > MAX_REQUEST_BYTES:
        raise errors.Exhausted(f"the request has {total} bytes: at most {MAX_REQUEST_BYTES} are taken, split it")


def _action(before: parse.Parsed | None, *, same: bool) -> Action:
    if before is None:
        return Action.CREATED
    return Action.UNCHANGED if same else Action.CHANGED


def _placed(fault: Fault, places: Mapping[Key, int]) -> Fault:
    return replace(fault, index=places.get(fault.key, -1))
