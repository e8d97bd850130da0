"""Selections of a Policy as conditions of CEL.

One decision to know: what a request lacks never opens a door. A condition that can't be told doesn't hold, so whatever
is negated is first made false where it can't be told (`default(condition, false)`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from meshwright.mixer.authoring.model import Access, Selection, Target

TRUE = "true"


def quoted(text: str) -> str:
    """A literal: what JSON escapes CEL reads alike."""
    return json.dumps(text, ensure_ascii=False)


def every(conditions: Iterable[str]) -> str:
    """All of them."""
    parts = [each for each in conditions if each != TRUE]
    return " && ".join(_grouped(each, "||", "?") for each in parts) if len(parts) > 1 else parts[0] if parts else TRUE


def any_of(conditions: Sequence[str]) -> str:
    """One of them."""
    if TRUE in conditions:
        return TRUE
    return " || ".join(_grouped(each, "?") for each in conditions) if len(conditions) > 1 else conditions[0]


def surely(condition: str) -> str:
    """The condition, false where it can't be told."""
    return condition if condition in (TRUE, "false") else f"default({condition}, false)"


def none_of(conditions: Sequence[str]) -> str:
    """The opposite of `any_of`, true where none can be told to hold."""
    if not conditions:
        return TRUE
    alternatives = any_of([surely(each) for each in conditions])
    return "false" if alternatives == TRUE else f"!({alternatives})"


def targeted(targets: Sequence[Target] | None) -> str:
    """Requests for one of the targets; without targets all."""
    if not targets:
        return TRUE
    for field, attribute in _TARGETS.items():
        if all(each.model_fields_set == {field} for each in targets):
            return matching(attribute, [getattr(each, field) for each in targets])
    return any_of([_target(each) for each in targets])


def selected(selection: Selection) -> str:
    """Requests that the selection means."""
    parts = [
        matching(attribute, patterns)
        for attribute, patterns in (
            ("source.principal", selection.principals),
            ("source.namespace", selection.namespaces),
        )
        if patterns
    ]
    if selection.ip_blocks:
        parts.append(any_of([f"cidr({quoted(each)}).containsIP(source.ip)" for each in selection.ip_blocks]))
    if selection.labels:
        parts += [f"source.labels[{quoted(key)}] == {quoted(value)}" for key, value in selection.labels.items()]
    if selection.methods:
        parts.append(matching("request.method", selection.methods))
    if selection.paths:
        parts.append(matching("request.url_path", selection.paths))
    if selection.hosts:
        parts.append(_hosts(selection.hosts))
    if selection.ports:
        parts.append(f"destination.port in [{', '.join(map(str, selection.ports))}]")
    if selection.when is not None:
        parts.append(_whole(selection.when))
    if isinstance(selection, Access) and selection.exceptions:
        parts.append(none_of([selected(each) for each in selection.exceptions]))
    return every(parts)


def matching(attribute: str, patterns: Sequence[str]) -> str:
    """The attribute fits one of the patterns."""
    exact = [each for each in patterns if "*" not in each]
    parts = [f"{attribute} == {quoted(exact[0])}"] if len(exact) == 1 else []
    if len(exact) > 1:
        parts.append(f"{attribute} in [{', '.join(map(quoted, exact))}]")
    for pattern in patterns:
        text = quoted(pattern.strip("*"))
        if pattern.strip("*") == "":
            parts.append(f'{attribute} != ""' if "*" in pattern else f'{attribute} == ""')
        elif pattern.startswith("*") and pattern.endswith("*"):
            parts.append(f"{attribute}.contains({text})")
        elif pattern.endswith("*"):
            parts.append(f"{attribute}.startsWith({text})")
        elif pattern.startswith("*"):
            parts.append(f"{attribute}.endsWith({text})")
    return any_of(parts)


_TARGETS = {
    "service": "destination.service.name",
    "workload": "destination.workload.name",
    "namespace": "destination.namespace",
    "network_service": "networkservice.name",
}


def _target(target: Target) -> str:
    parts = [
        matching(attribute, [pattern])
        for field, attribute in _TARGETS.items()
        if (pattern := getattr(target, field)) is not None
    ]
    if target.port is not None:
        parts.append(f"destination.port == {target.port}")
    return every(parts)


def _hosts(patterns: Sequence[str]) -> str:
    """Hosts in any case, with or without a port."""
    if any(each.strip("*") == "" for each in patterns):
        return 'request.host != ""'
    names = "|".join(".*".join(re.escape(part) for part in each.lower().split("*")) for each in patterns)
    return f"request.host.lowerAscii().matches({quoted(f'^(?:{names})(?::[0-9]+)?$')})"


def _whole(source: str) -> str:
    """An expression of the author's, on a line of its own if it ends in a comment."""
    return f"({source}\n)" if "//" in source else f"({source})"


def _grouped(condition: str, *operators: str) -> str:
    """In brackets where an operator of looser binding may be inside; brackets too many do no harm."""
    return (
        f"({condition})" if any(each in condition for each in operators) and not _is_grouped(condition) else condition
    )


def _is_grouped(condition: str) -> bool:
    """Whether the first bracket is closed by the last character; quotes make it unsure, then it isn't."""
    if not condition.startswith("(") or any(quote in condition for quote in "\"'"):
        return False
    depth = 0
    for position, character in enumerate(condition):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return position == len(condition) - 1
    return False
