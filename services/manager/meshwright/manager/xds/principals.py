"""Who calls: `Callers` and conditions on the caller, as principals of Envoy's RBAC filters.

One decision to know: what can't be decided where it is asked (a token on a connection that isn't HTTP, an attribute
that nobody knows) fits nothing, and its negation nothing either, so that a rule never lets in or keeps out whom its
author didn't mean.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from google.protobuf.wrappers_pb2 import UInt32Value

from meshwright.api.envoy.config.core.v3.address_pb2 import CidrRange
from meshwright.api.envoy.config.rbac.v3.rbac_pb2 import Principal
from meshwright.api.envoy.config.route.v3.route_components_pb2 import HeaderMatcher
from meshwright.api.envoy.type.matcher.v3.metadata_pb2 import MetadataMatcher
from meshwright.api.envoy.type.matcher.v3.string_pb2 import StringMatcher
from meshwright.api.envoy.type.matcher.v3.value_pb2 import ListMatcher, ValueMatcher
from meshwright.manager.model.access import Bound, Callers, Condition
from meshwright.manager.model.routing import Text, TextMatch
from meshwright.manager.xds import match

T = TypeVar("T")

JWT = "envoy.filters.http.jwt_authn"
PAYLOAD = "payload"  # the key of that filter's metadata under which the token's claims are

ANY = Principal(any=True)
NOBODY = Principal(not_id=ANY)


def callers(
    who: Callers, conditions: Iterable[Condition], bound: Mapping[tuple[str, str], Bound], *, http: bool
) -> Principal:
    """Return the principal that fits the callers under all conditions."""
    parts = [
        _any(who.identities, _identity),
        _any(who.namespaces, _namespace),
        _any(who.token_identities, _token) if http or not who.token_identities else NOBODY,
        _any(who.addresses, _direct),
        _any(who.remote_addresses, _remote),
        _any(who.bindings, lambda reference: _binding(bound.get(reference, Bound()))),
        _none(who.not_identities, _identity),
        _none(who.not_namespaces, _namespace),
        _none(who.not_token_identities, _token) if http or not who.not_token_identities else NOBODY,
        _none(who.not_addresses, _direct),
        _none(who.not_remote_addresses, _remote),
        *(_condition(each, http=http) for each in conditions),
    ]
    return every([part for part in parts if part is not None])


def every(parts: Sequence[Principal]) -> Principal:
    """Return what fits whom all parts fit."""
    if len(parts) < 2:
        return parts[0] if parts else ANY
    return Principal(and_ids=Principal.Set(ids=parts))


def either(parts: Sequence[Principal]) -> Principal:
    """Return what fits whom some part fits."""
    if len(parts) == 1:
        return parts[0]
    return Principal(or_ids=Principal.Set(ids=parts)) if parts else NOBODY


def about_caller(condition: Condition) -> bool:
    """Whether a condition is on who calls, and not on what is called."""
    return not condition.attribute.startswith(("destination.", "connection."))


def _any(values: Sequence[T], principal: Callable[[T], Principal]) -> Principal | None:
    return either([principal(value) for value in values]) if values else None


def _none(values: Sequence[T], principal: Callable[[T], Principal]) -> Principal | None:
    return Principal(not_id=either([principal(value) for value in values])) if values else None


def _identity(text: TextMatch) -> Principal:
    return Principal(authenticated=Principal.Authenticated(principal_name=match.string(text)))


def _namespace(text: TextMatch) -> Principal:
    whole = TextMatch(Text.REGEX, f"spiffe://[^/]+/ns/(?:{match.pattern(text).replace('.*', '[^/]*')})/sa/[^/]+")
    return _identity(whole)


def _binding(found: Bound) -> Principal:
    """Whom a binding names; single workloads by their address as well, for others may share their account."""
    identities = [_identity(TextMatch(Text.EXACT, identity)) for identity in found.identities]
    workloads = [
        every([_identity(TextMatch(Text.EXACT, identity)), _direct(address)]) for identity, address in found.workloads
    ]
    return either([*identities, *workloads])


def _token(text: TextMatch) -> Principal:
    """ISSUER/SUBJECT: an issuer is a URL, so the last slash parts them."""
    issuer, _, subject = text.value.rpartition("/")
    whole = StringMatcher(prefix=text.value) if text.value else StringMatcher(prefix="")
    match text.kind:
        case Text.EXACT:
            return every([_claim(["iss"], StringMatcher(exact=issuer)), _claim(["sub"], StringMatcher(exact=subject))])
        case Text.PREFIX:
            parted = [_claim(["iss"], StringMatcher(exact=issuer))]
            parted += [_claim(["sub"], StringMatcher(prefix=subject))] if subject else []
            return either([_claim(["iss"], whole), every(parted)]) if issuer else _claim(["iss"], whole)
        case Text.SUFFIX if issuer:
            found = [_claim(["iss"], StringMatcher(suffix=issuer)), _claim(["sub"], StringMatcher(exact=subject))]
            return every(found)
        case Text.SUFFIX:
            return _claim(["sub"], StringMatcher(suffix=subject))
        case Text.PRESENT:
            return every([_claim(["iss"], match.string(text)), _claim(["sub"], match.string(text))])
    return NOBODY


def _claim(path: Iterable[str], value: StringMatcher) -> Principal:
    """Fit a claim that is a text, or a list with such a text."""
    keys = [MetadataMatcher.PathSegment(key=key) for key in (PAYLOAD, *path)]
    text = ValueMatcher(string_match=value)
    of_list = ValueMatcher(list_match=ListMatcher(one_of=text))
    return either([
        Principal(metadata=MetadataMatcher(filter=JWT, path=keys, value=each)) for each in (text, of_list)
    ])  # fmt: skip


def _direct(address: str) -> Principal:
    return Principal(direct_remote_ip=cidr(address))


def _remote(address: str) -> Principal:
    return Principal(remote_ip=cidr(address))


def cidr(text: str) -> CidrRange:
    """Return a range of addresses; a single address is one."""
    network = ipaddress.ip_network(text, strict=False)
    return CidrRange(address_prefix=str(network.network_address), prefix_len=UInt32Value(value=network.prefixlen))


_HEADER = re.compile(r"request\.headers\[([^\]]+)\]")
_CLAIMS = re.compile(r"request\.auth\.claims((?:\[[^\]]+\])+)")


def _condition(condition: Condition, *, http: bool) -> Principal:
    """Return what fits callers for whom an attribute has one of the values and none of the others."""
    if not http and condition.attribute.startswith("request."):
        return NOBODY
    parts = []
    if condition.values:
        parts.append(either([_attribute(condition.attribute, value) for value in condition.values]))
    unfit = [_attribute(condition.attribute, value) for value in condition.not_values]
    if NOBODY in unfit:
        return NOBODY
    if unfit:
        parts.append(Principal(not_id=either(unfit)))
    return every(parts)


def _attribute(name: str, value: TextMatch) -> Principal:
    if found := _HEADER.fullmatch(name):
        return Principal(header=HeaderMatcher(name=found[1].lower(), string_match=match.string(value)))
    if found := _CLAIMS.fullmatch(name):
        return _claim(found[1][1:-1].split("]["), match.string(value))
    match name:
        case "source.ip":
            return _direct(value.value)
        case "remote.ip":
            return _remote(value.value)
        case "source.namespace":
            return _namespace(value)
        case "source.principal":
            return _identity(value)
        case "request.auth.principal":
            return _token(value)
        case "request.auth.audiences":
            return _claim(["aud"], match.string(value))
        case "request.auth.presenter":
            return _claim(["azp"], match.string(value))
    return NOBODY
