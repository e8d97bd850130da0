"""Who may do what, by roles and bindings: a pure function of one authorization instance.

Source: Istio's classic RBAC reference (rbac.istio.io/v1alpha1). What it leaves open is decided here: `subject.groups`
lists its groups with commas between them; what is looked for and isn't in the instance fits no pattern, and so no
negative one either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from meshwright.mixer.adapter.v1 import Authorization, Value
from meshwright.mixer.adapters.plain import text
from meshwright.mixer.specs.rbac import AccessRule, RbacConfig, ServiceRole, ServiceRoleBinding, Subject

Name = tuple[str, str]
"""Namespace and name."""


class Outcome(Enum):
    """What was decided."""

    ALLOWED = "allowed"
    DENIED = "denied"
    WOULD_DENY = "would deny"  # permissive: told, not enforced


@dataclass(frozen=True, slots=True)
class _Grant:
    subjects: Sequence[Subject]
    rules: Sequence[AccessRule]
    is_permissive: bool


class Roles:
    """All roles and bindings, by the namespace of the services that they are for."""

    def __init__(
        self,
        config: RbacConfig | None,
        roles: Mapping[Name, ServiceRole],
        bindings: Mapping[Name, ServiceRoleBinding],
    ) -> None:
        self._config = config or RbacConfig()
        self._grants: dict[str, list[_Grant]] = {}
        for (namespace, _), binding in bindings.items():
            role = roles.get((namespace, binding.role_ref.name))
            if role is not None:
                grant = _Grant(binding.subjects, role.rules, binding.mode == "PERMISSIVE")
                self._grants.setdefault(namespace, []).append(grant)

    def decide(self, instance: Authorization) -> Outcome:
        """Whether a role that is bound to the subject allows the action."""
        if not self._counts(instance):
            return Outcome.ALLOWED
        permitted = False
        for grant in self._grants.get(instance.action.namespace, ()):
            if any(_is(subject, instance) for subject in grant.subjects) and any(
                _allows(rule, instance) for rule in grant.rules
            ):
                if not grant.is_permissive:
                    return Outcome.ALLOWED
                permitted = True
        if permitted or self._config.enforcement_mode == "PERMISSIVE":
            return Outcome.WOULD_DENY
        return Outcome.DENIED

    def _counts(self, instance: Authorization) -> bool:
        """Whether roles are asked about this service at all."""
        config, action = self._config, instance.action
        match config.mode:
            case "OFF":
                return False
            case "ON":
                return True
            case "ON_WITH_INCLUSION":
                target = config.inclusion
            case "ON_WITH_EXCLUSION":
                target = config.exclusion
        named = action.service in target.services or action.namespace in target.namespaces
        return named == (config.mode == "ON_WITH_INCLUSION")


def _is(subject: Subject, instance: Authorization) -> bool:
    given, found = subject, instance.subject
    groups = [group.strip() for group in found.groups.split(",") if group.strip()]
    sources = found.properties
    return (
        (not given.user or _fits(given.user, found.user))
        and (not given.group or given.group in groups)
        and _within([found.user], given.names, given.not_names)
        and _within(groups, given.groups, given.not_groups)
        and _within(_texts(sources, "source.namespace"), given.namespaces, given.not_namespaces)
        and _within(_texts(sources, "source.ip"), given.ips, given.not_ips)
        and all(_any(_texts(sources, key), [wanted]) for key, wanted in given.properties.items())
    )


def _allows(rule: AccessRule, instance: Authorization) -> bool:
    action = instance.action
    return (
        _within([action.service], rule.services, ())
        and _within(_texts(action.properties, "request.host"), rule.hosts, rule.not_hosts)
        and _within([action.path], rule.paths, rule.not_paths)
        and _within([action.method], rule.methods, rule.not_methods)
        and _within(_texts(action.properties, "destination.port"), [*map(str, rule.ports)], [*map(str, rule.not_ports)])
        and all(_any(_texts(action.properties, each.key), each.values) for each in rule.constraints)
    )


def _within(found: Sequence[str], wanted: Sequence[str], unwanted: Sequence[str]) -> bool:
    """Some of what was found is wanted (all is, where nothing is named), and none is unwanted."""
    return (not wanted or _any(found, wanted)) and not _any(found, unwanted)


def _any(found: Iterable[str], patterns: Sequence[str]) -> bool:
    return any(_fits(pattern, text) for text in found for pattern in patterns)


def _fits(pattern: str, text: str) -> bool:
    """A pattern is exact, or has one `*` at its end or its beginning; alone it fits all that isn't empty."""
    if pattern == "*":
        return bool(text)
    if pattern.endswith("*"):
        return text.startswith(pattern[:-1])
    if pattern.startswith("*"):
        return text.endswith(pattern[1:])
    return text == pattern


def _texts(properties: Mapping[str, Value], key: str) -> list[str]:
    return [text(properties[key])] if key in properties else []
