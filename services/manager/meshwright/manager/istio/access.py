"""Istio's security objects as access rules of the inner model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from meshwright.core.config import Key
from meshwright.manager.istio import authorization_policy as policies
from meshwright.manager.istio.peer_authentication import PeerAuthenticationSpec
from meshwright.manager.istio.request_authentication import RequestAuthenticationSpec
from meshwright.manager.istio.unknown import unsupported
from meshwright.manager.model.access import (
    Access,
    AccessRule,
    Callers,
    Condition,
    Operations,
    PeerRule,
    PeerTls,
    TokenRule,
    Verdict,
)
from meshwright.manager.model.meaning import Context, Notice
from meshwright.manager.model.routing import Text, TextMatch

DRY_RUN = "istio.io/dry-run"
"""Annotation of an AuthorizationPolicy that is tried out: what it would do is only said."""

_VERDICTS = {"ALLOW": Verdict.ALLOW, "DENY": Verdict.DENY, "AUDIT": Verdict.AUDIT, "CUSTOM": Verdict.ASK}
_MODES = {"DISABLE": PeerTls.DISABLED, "PERMISSIVE": PeerTls.PERMISSIVE, "STRICT": PeerTls.STRICT}
_OWN_DOMAIN = "cluster.local/"  # whatever the mesh's trust domain is called, this is it too
_SPIFFE = "spiffe://"
Matches = tuple[TextMatch, ...]


def access(key: Key, spec: policies.AuthorizationPolicySpec, context: Context, *, dry_run: bool) -> Access:
    """Return what a policy says."""
    return Access(
        key,
        _VERDICTS[spec.action],
        tuple(made for rule in spec.rules for made in _rules(rule, key.namespace, context)),
        spec.labels,
        provider=spec.provider.name if spec.provider else "",
        dry_run=dry_run,
    )


def _rules(rule: policies.Rule, namespace: str, context: Context) -> Iterator[AccessRule]:
    """Give one rule, or one for each source where one says of an identity what two lists must both fit."""
    operations = tuple(_operations(entry.operation) for entry in rule.to)
    conditions = tuple(_condition(entry, context) for entry in rule.when)
    sources = [(_callers(entry.source, namespace, context), _also(entry.source, context)) for entry in rule.from_]
    if any(also for _, also in sources):
        for callers, also in sources:
            yield AccessRule((callers,), operations, (*conditions, *also))
    else:
        yield AccessRule(tuple(callers for callers, _ in sources), operations, conditions)


def _callers(source: policies.Source, namespace: str, context: Context) -> Callers:
    accounts = tuple(_account(name, namespace, context) for name in source.service_accounts)
    not_accounts = tuple(_account(name, namespace, context) for name in source.not_service_accounts)
    domains = tuple(_domain(name, context) for name in source.not_trust_domains)
    return Callers(
        (*_principals(source.principals, context), *accounts),
        _patterns(source.namespaces),
        _patterns(source.request_principals),
        tuple(source.ip_blocks),
        tuple(source.remote_ip_blocks),
        (*_principals(source.not_principals, context), *not_accounts, *domains),
        _patterns(source.not_namespaces),
        _patterns(source.not_request_principals),
        tuple(source.not_ip_blocks),
        tuple(source.not_remote_ip_blocks),
    )


def _also(source: policies.Source, context: Context) -> tuple[Condition, ...]:
    """Return what must fit beside the identities: the trust domains of theirs."""
    if not source.trust_domains:
        return ()
    return (Condition("source.principal", tuple(_domain(name, context) for name in source.trust_domains)),)


def _operations(found: policies.Operation) -> Operations:
    methods, odd = _methods(found.methods)
    not_methods, not_odd = _methods(found.not_methods)
    headers = [(":method", TextMatch(Text.REGEX, odd))] if odd else []
    headers += [(":method", TextMatch(Text.REGEX, not_odd, negated=True))] if not_odd else []
    return Operations(
        tuple(map(int, found.ports)),
        methods,
        tuple(_path(path) for path in found.paths),
        _patterns(found.hosts, ignore_case=True),
        tuple(headers),
        tuple(map(int, found.not_ports)),
        not_methods,
        tuple(_path(path) for path in found.not_paths),
        _patterns(found.not_hosts, ignore_case=True),
    )


def _methods(found: Iterable[str]) -> tuple[tuple[str, ...], str]:
    """Return whole methods, or with any pattern among them one expression for all."""
    known = tuple(found)
    if not any("*" in method for method in known):
        return known, ""
    return (), "|".join(re.escape(method).replace(r"\*", ".*") for method in known)


def _condition(found: policies.Condition, context: Context) -> Condition:
    if found.key in ("source.principal", "source.serviceAccount"):

        def read(values: list[str]) -> Matches:
            if found.key == "source.principal":
                return _principals(values, context)
            return tuple(_account(value, context.namespace, context) for value in values)

        return Condition("source.principal", read(found.values), read(found.not_values))
    ignore_case = found.key == "connection.sni"
    return Condition(
        found.key,
        _patterns(found.values, ignore_case=ignore_case),
        _patterns(found.not_values, ignore_case=ignore_case),
    )


def _principals(found: Iterable[str], context: Context) -> Matches:
    return tuple(_principal(text, context) for text in found)


def _principal(text: str, context: Context) -> TextMatch:
    """``DOMAIN/ns/NAMESPACE/sa/ACCOUNT``, with a wildcard at one end or none: a whole SPIFFE ID."""
    match = pattern(text)
    if match.kind in (Text.PRESENT, Text.SUFFIX):
        return match
    whole = match.value.removeprefix(_SPIFFE)
    if whole.startswith(_OWN_DOMAIN):
        whole = f"{context.trust_domain}/{whole.removeprefix(_OWN_DOMAIN)}"
    return TextMatch(match.kind, f"{_SPIFFE}{whole}")


def _account(text: str, namespace: str, context: Context) -> TextMatch:
    where, _, name = text.rpartition("/")
    return TextMatch(Text.EXACT, f"{_SPIFFE}{context.trust_domain}/ns/{where or namespace}/sa/{name}")


def _domain(text: str, context: Context) -> TextMatch:
    match = pattern(text)
    if match.kind is Text.PRESENT:
        return match
    if match.kind is Text.SUFFIX:
        return TextMatch(Text.REGEX, f"{_SPIFFE}[^/]*{re.escape(match.value)}/.*")
    name = context.trust_domain if f"{match.value}/" == _OWN_DOMAIN else match.value
    return TextMatch(Text.PREFIX, f"{_SPIFFE}{name}" + ("/" if match.kind is Text.EXACT else ""))


def _path(text: str) -> TextMatch:
    if "{" not in text:
        return pattern(text)
    parts = (".*" if part == "{**}" else "[^/]+" if part == "{*}" else re.escape(part) for part in text.split("/"))
    return TextMatch(Text.REGEX, "/".join(parts))


def _patterns(found: Iterable[str], *, ignore_case: bool = False) -> Matches:
    return tuple(pattern(text, ignore_case=ignore_case) for text in found)


def pattern(text: str, *, ignore_case: bool = False) -> TextMatch:
    """Return ``text``, ``*``, ``prefix*`` or ``*suffix`` as a condition."""
    if text == "*":
        return TextMatch(Text.PRESENT)
    if text.startswith("*"):
        return TextMatch(Text.SUFFIX, text[1:], ignore_case)
    if text.endswith("*"):
        return TextMatch(Text.PREFIX, text[:-1], ignore_case)
    return TextMatch(Text.EXACT, text, ignore_case)


def peers(key: Key, spec: PeerAuthenticationSpec) -> PeerRule:
    """Return how callers connect."""
    ports = tuple((int(port), _MODES[tls.mode]) for port, tls in spec.port_level_mtls.items() if tls.mode != "UNSET")
    return PeerRule(key, spec.labels, _MODES.get(spec.mtls.mode) if spec.mtls else None, tuple(sorted(ports)))


def tokens(key: Key, spec: RequestAuthenticationSpec) -> Iterator[TokenRule]:
    """Give the tokens of each issuer."""
    for rule in spec.jwt_rules:
        yield TokenRule(
            key,
            rule.issuer,
            spec.labels,
            tuple(rule.audiences),
            rule.jwks or "",
            rule.jwks_uri or "",
            tuple((header.name, header.prefix) for header in rule.from_headers),
            tuple(rule.from_params),
            tuple(rule.from_cookies),
            rule.forward_original_token,
            rule.output_payload_to_header or "",
            tuple((entry.header, entry.claim) for entry in rule.output_claim_to_headers),
            rule.timeout,
        )


def notices(key: Key, spec: RequestAuthenticationSpec) -> Iterator[Notice]:
    """Tell what of it proxies don't do."""
    for number, rule in enumerate(spec.jwt_rules):
        field = f"spec.jwtRules[{number}].spaceDelimitedClaims"
        yield from unsupported(key, [(field, rule.space_delimited_claims, "claims are compared as they are")])
