"""Access to a workload, as the filters of its proxy's inbound chains.

Order: tokens are read, denials are tried, then grants; a request that is refused is answered with 403, a connection
that isn't HTTP is closed. What only would be refused (`Access.dry_run`, `Verdict.AUDIT`) is counted and logged by the
same filters' shadow rules. One decision to know: a chain serves one port, so ports are decided here and proxies compare
none; and a rule about requests never fits bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from meshwright.api.envoy.config.listener.v3.listener_components_pb2 import Filter
from meshwright.api.envoy.config.rbac.v3.rbac_pb2 import RBAC, Permission, Policy
from meshwright.api.envoy.config.route.v3.route_components_pb2 import HeaderMatcher
from meshwright.api.envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac
from meshwright.api.envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpFilter,
)
from meshwright.api.envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as network_rbac
from meshwright.api.envoy.type.matcher.v3.path_pb2 import PathMatcher
from meshwright.api.envoy.type.matcher.v3.regex_pb2 import RegexMatcher
from meshwright.api.envoy.type.matcher.v3.string_pb2 import StringMatcher
from meshwright.manager.model.access import AccessRule, Callers, Condition, Operations, Verdict
from meshwright.manager.model.governed import Governed
from meshwright.manager.model.routing import TextMatch
from meshwright.manager.xds import match, principals, wire

T = TypeVar("T")

ANY = Permission(any=True)
NOTHING = Permission(not_rule=ANY)

_ANYBODY = Callers()
_MIXER = ("", "mixer", "meshwright")  # providers that are asked about every request anyway


def http(governed: Governed, port: int, *, closed: bool) -> list[HttpFilter]:
    """Return the filters that decide about requests to a port; `closed`: nothing is allowed without a grant."""
    found = []
    for name, rules, shadow in _rules(governed, port, closed=closed, is_http=True):
        config = http_rbac.RBAC(rules=rules, shadow_rules=shadow, shadow_rules_stat_prefix=f"{name}_")
        found.append(HttpFilter(name=f"envoy.filters.http.rbac.{name}", typed_config=wire.pack(config)))
    return found


def network(governed: Governed, port: int, *, closed: bool) -> list[Filter]:
    """Return the filters that decide about connections to a port."""
    found = []
    for name, rules, shadow in _rules(governed, port, closed=closed, is_http=False):
        config = network_rbac.RBAC(rules=rules, shadow_rules=shadow, stat_prefix=f"inbound_{port}_{name}_")
        found.append(Filter(name=f"envoy.filters.network.rbac.{name}", typed_config=wire.pack(config)))
    return found


def _rules(
    governed: Governed, port: int, *, closed: bool, is_http: bool
) -> Iterator[tuple[str, RBAC | None, RBAC | None]]:
    """Yield a filter's name, the rules that are in force, and those that are only told."""

    def policies(*verdicts: Verdict, dry: bool) -> dict[str, Policy]:
        return {
            f"{access.origin.namespace}/{access.origin.kind}/{access.origin.name}[{number}]": policy
            for access in governed.access
            if access.verdict in verdicts and access.dry_run is dry
            if access.verdict is not Verdict.ASK or access.provider not in _MIXER
            for number, rule in enumerate(access.rules)
            if (policy := _policy(governed, rule, port, is_http=is_http)) is not None
        }

    # Whoever another service should be asked about is denied: there is no service that could be asked.
    denied = policies(Verdict.DENY, Verdict.ASK, dry=False)
    would_deny = {**policies(Verdict.DENY, dry=True), **policies(Verdict.AUDIT, dry=False)}
    if denied or would_deny:
        yield "deny", _action(RBAC.DENY, denied), _action(RBAC.DENY, would_deny)
    grants = {each.dry_run for each in governed.access if each.verdict is Verdict.ALLOW}
    allowed = RBAC(action=RBAC.ALLOW, policies=policies(Verdict.ALLOW, dry=False))
    would_allow = RBAC(action=RBAC.ALLOW, policies=policies(Verdict.ALLOW, dry=True))
    if closed or grants:
        yield "allow", allowed if closed or False in grants else None, would_allow if True in grants else None


def _action(action: RBAC.Action, policies: dict[str, Policy]) -> RBAC | None:
    return RBAC(action=action, policies=policies) if policies else None


def _policy(governed: Governed, rule: AccessRule, port: int, *, is_http: bool) -> Policy | None:
    """Return one rule's policy for a port; None: it fits nothing there."""
    operations = [each for each in rule.operations if _may_fit(each, port, is_http=is_http)]
    if rule.operations and not operations:
        return None
    destination = [each for each in rule.conditions if not principals.about_caller(each)]
    source = [each for each in rule.conditions if principals.about_caller(each)]
    what = [_operation(each) for each in operations] or [ANY]
    where = [_destination(each, port) for each in destination]
    if NOTHING in where:
        return None
    if where:
        what = [Permission(and_rules=Permission.Set(rules=[*where, _either(what)]))]
    who = [principals.callers(each, source, governed.bound, http=is_http) for each in rule.callers]
    if not who:
        who = [principals.callers(_ANYBODY, source, governed.bound, http=is_http)]
    return Policy(permissions=what, principals=who)


def _may_fit(operation: Operations, port: int, *, is_http: bool) -> bool:
    if operation.protocol != "tcp" or (operation.http and not is_http):
        return False
    return port not in operation.not_ports and (not operation.ports or port in operation.ports)


def _operation(operation: Operations) -> Permission:
    parts = [
        *_sides(operation.methods, operation.not_methods, _method),
        *_sides(operation.paths, operation.not_paths, _path),
        *_sides(operation.hosts, operation.not_hosts, _host),
        *(Permission(header=match.header(name, text)) for name, text in operation.headers),
    ]
    if len(parts) < 2:
        return parts[0] if parts else ANY
    return Permission(and_rules=Permission.Set(rules=parts))


def _sides(wanted: Sequence[T], unwanted: Sequence[T], permission: Callable[[T], Permission]) -> Iterator[Permission]:
    if wanted:
        yield _either([permission(each) for each in wanted])
    if unwanted:
        yield Permission(not_rule=_either([permission(each) for each in unwanted]))


def _either(parts: list[Permission]) -> Permission:
    return parts[0] if len(parts) == 1 else Permission(or_rules=Permission.Set(rules=parts))


def _method(name: str) -> Permission:
    return Permission(header=HeaderMatcher(name=":method", string_match=StringMatcher(exact=name)))


def _path(text: TextMatch) -> Permission:
    return Permission(url_path=PathMatcher(path=match.string(text)))


def _host(text: TextMatch) -> Permission:
    """Fit the authority with any port: a policy names hosts as people do."""
    expression = f"(?i:(?:{match.pattern(text)})(?::[0-9]+)?)"
    matcher = StringMatcher(safe_regex=RegexMatcher(regex=expression))
    return Permission(header=HeaderMatcher(name=":authority", string_match=matcher))


def _destination(condition: Condition, port: int) -> Permission:
    """Return a condition on what is called; of ports it is decided here."""
    match condition.attribute:
        case "destination.port":
            fits = not condition.values or str(port) in {each.value for each in condition.values}
            return ANY if fits and str(port) not in {each.value for each in condition.not_values} else NOTHING
        case "destination.ip":
            return _both(condition, lambda text: Permission(destination_ip=principals.cidr(text.value)))
        case "connection.sni":
            return _both(condition, lambda text: Permission(requested_server_name=match.string(text)))
    return NOTHING


def _both(condition: Condition, permission: Callable[[TextMatch], Permission]) -> Permission:
    parts = list(_sides(condition.values, condition.not_values, permission))
    return parts[0] if len(parts) == 1 else Permission(and_rules=Permission.Set(rules=parts))
