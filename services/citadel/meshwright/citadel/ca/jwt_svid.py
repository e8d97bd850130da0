"""JWT-SVIDs (SPIFFE JWT-SVID): making one, and judging one as strictly as the specification words it.

One decision to know: of a token's header nothing is believed but the name of the key. Algorithms are the asymmetric
ones of the specification's section 2.1; keys come from the bundle of the trust domain that the subject names; headers
that bring keys along (`jwk`, `jku`, `x5u`) are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import jwt

from meshwright.citadel.ca.jwt_keys import LEEWAY, JwtKey
from meshwright.citadel.errors import TokenInvalid
from meshwright.core import errors, identity

ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512")
MAX_BYTES = 16 * 1024
MAX_AUDIENCES = 32
MAX_AUDIENCE_BYTES = 512

_LAST_SECOND = 1 << 40  # some 35,000 years
_TYPES = ("JWT", "JOSE")
_MEMBERS = frozenset(("alg", "kid", "typ"))  # of a header; others bring keys, or meanings that we don't know


@dataclass(frozen=True, slots=True)
class Token:
    """A signed token; whoever holds it is believed, so it is in no log."""

    text: str
    spiffe_id: str
    issued: datetime
    expires: datetime

    def __repr__(self) -> str:
        """Name the identity without the token."""
        return f"Token({self.spiffe_id}, expires={self.expires.isoformat()})"


def check_audience(audience: Sequence[str]) -> tuple[str, ...]:
    """Return the audiences that a token is asked for, each once; ConfigError for none, an empty or a huge one."""
    if not audience or not all(audience):
        raise errors.ConfigError(
            "no audience, or an empty one", field="audience", remedy="name who is to accept the token"
        )
    if len(audience) > MAX_AUDIENCES or any(len(one.encode()) > MAX_AUDIENCE_BYTES for one in audience):
        limits = f"at most {MAX_AUDIENCES} of at most {MAX_AUDIENCE_BYTES} bytes"
        raise errors.ConfigError(f"{len(audience)} audiences", field="audience", remedy=limits)
    return tuple(dict.fromkeys(audience))


def sign(
    key: JwtKey, spiffe_id: str, audience: Sequence[str], issued: datetime, expires: datetime, issuer: str
) -> Token:
    """Make a token of whole seconds; `issuer` is the ``iss`` claim that OIDC needs, empty for none."""
    issued, expires = issued.replace(microsecond=0), expires.replace(microsecond=0)
    claims: dict[str, Any] = {"sub": spiffe_id, "aud": list(audience)}
    claims |= {"iat": int(issued.timestamp()), "exp": int(expires.timestamp())}
    if issuer:
        claims["iss"] = issuer
    return Token(jwt.encode(claims, key.private, "ES256", {"kid": key.id}), spiffe_id, issued, expires)


def verify(token: str, audience: str, bundles: Mapping[str, Mapping[str, jwt.PyJWK]], now: datetime) -> dict[str, Any]:
    """Return a token's claims; raise TokenInvalid saying what is wrong with it.

    `bundles` are the keys by trust domain and key id.
    """
    if len(token) > MAX_BYTES:
        raise TokenInvalid(f"has {len(token)} characters: at most {MAX_BYTES} are read")
    header, claims = _opened(token)
    key = _key(header, claims, bundles)
    try:
        jwt.PyJWS().decode(token, key, algorithms=[str(header["alg"])])
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise TokenInvalid("its signature isn't the named key's") from error
    _check_times(claims, now)
    audiences = claims.get("aud")
    wanted = [audiences] if isinstance(audiences, str) else audiences
    if not isinstance(wanted, list) or audience not in wanted:
        raise TokenInvalid(f"isn't for the audience {audience[:200]!r}")
    return claims


def _opened(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims of the compact form, nothing of which is believed yet."""
    parts = token.split(".")
    if len(parts) != 3 or not all(parts):
        raise TokenInvalid("isn't a signed JWT in compact form: three parts with dots between them")
    try:
        header, claims = map(_decoded, parts[:2])
    except (ValueError, RecursionError) as error:
        raise TokenInvalid("its header and claims aren't base64url of JSON") from error
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise TokenInvalid("its header and claims aren't JSON objects")
    return header, claims


def _decoded(part: str) -> Any:
    return json.loads(jwt.utils.base64url_decode(part), object_pairs_hook=_once, parse_constant=_no_number)


def _no_number(name: str) -> None:
    raise TokenInvalid(f"{name} is no number of JSON's")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a name that occurs twice, of which two readers may take different ones (RFC 8725 section 2.5)."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise TokenInvalid("a name occurs twice in it")
    return found


def _key(
    header: Mapping[str, Any], claims: Mapping[str, Any], bundles: Mapping[str, Mapping[str, jwt.PyJWK]]
) -> jwt.PyJWK:
    if header.get("alg") not in ALGORITHMS:
        raise TokenInvalid(f"algorithm {str(header.get('alg'))[:40]!r} isn't one of {', '.join(ALGORITHMS)}")
    if header.get("typ", "JWT") not in _TYPES:
        raise TokenInvalid(f"typ {str(header['typ'])[:40]!r} isn't JWT or JOSE")
    foreign = sorted(map(str, header.keys() - _MEMBERS))
    if foreign:
        raise TokenInvalid(f"its header has {foreign[0][:40]!r}: only alg, kid and typ are taken")
    subject = claims.get("sub")
    try:
        identity.check_spiffe_id(subject if isinstance(subject, str) else "")
    except errors.ConfigError as error:
        raise TokenInvalid("its subject isn't a SPIFFE ID") from error
    domain = str(subject).removeprefix("spiffe://").partition("/")[0]
    if domain not in bundles:
        raise TokenInvalid(f"there is no bundle of trust domain {domain}")
    key = bundles[domain].get(str(header.get("kid", "")))
    if key is None:
        raise TokenInvalid(f"trust domain {domain} has no key {str(header.get('kid'))[:80]!r}")
    return key


def _check_times(claims: Mapping[str, Any], now: datetime) -> None:
    expires, moment = _seconds(claims, "exp"), now.timestamp()
    if expires is None:
        raise TokenInvalid("has no exp: a JWT-SVID ends")
    if expires + LEEWAY.total_seconds() <= moment:
        raise TokenInvalid("has expired")
    for name in ("nbf", "iat"):
        begins = _seconds(claims, name)
        if begins is not None and begins - LEEWAY.total_seconds() > moment:
            raise TokenInvalid(f"isn't valid yet: its {name} lies in the future")


def _seconds(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > _LAST_SECOND
    ):
        raise TokenInvalid(f"its {name} isn't a number of seconds")
    return value
