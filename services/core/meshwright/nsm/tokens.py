"""Path tokens: what one hop signs for the next, so that whoever is asked can see for whom it is.

A token is a JWT (RFC 7519) signed with ES256 by the key of the hop's SVID: `sub` is the hop, `aud` the one it calls.
One decision to know: the original compares neither `sub` with the certificate nor reads the expiry from what is signed;
here the certificate's SPIFFE ID must be the subject, and `exp` is the only expiry there is.
"""

from __future__ import annotations

import base64
import binascii
import functools
import itertools
import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from meshwright.core.identity import X509Identity
from meshwright.nsm.errors import InvalidToken

METADATA = "nsm-client-token"
METADATA_EXPIRES = "nsm-client-token-expires"  # sent for the original programs; never read

_LIMIT = 8192  # characters; two SPIFFE IDs of 2048 bytes each fit
_LATEST = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
_COORDINATE = 32  # octets of a P-256 signature's r and s


@dataclass(frozen=True, slots=True)
class Token:
    """One token as read; whether it was verified depends on the function that returned it."""

    text: str
    subject: str
    audience: tuple[str, ...]
    expires: datetime

    def __repr__(self) -> str:
        """Leave the signed text out: representations end in logs."""
        return f"Token({self.subject} for {', '.join(self.audience)} until {self.expires.isoformat()})"


def issue(identity: X509Identity, audience: str, expires: datetime) -> Token:
    """Sign a token for `audience`; it lives no longer than the identity's certificate."""
    until = math.floor(min(expires, identity.not_after).timestamp())
    claims = {"sub": identity.spiffe_id, "aud": [audience], "exp": until}
    head = f"{_encode_json({'alg': 'ES256', 'typ': 'JWT'})}.{_encode_json(claims)}"
    r, s = utils.decode_dss_signature(_signing_key(identity.key_pem).sign(head.encode(), ec.ECDSA(hashes.SHA256())))
    signature = r.to_bytes(_COORDINATE, "big") + s.to_bytes(_COORDINATE, "big")
    return Token(
        text=f"{head}.{_encode(signature)}",
        subject=identity.spiffe_id,
        audience=(audience,),
        expires=datetime.fromtimestamp(until, UTC),
    )


def parse(text: str) -> Token:
    """Read a token without verifying its signature, as an earlier hop's must be; raise InvalidToken."""
    if len(text) > _LIMIT:
        raise InvalidToken(f"token: longer than {_LIMIT} characters")
    parts = text.split(".")
    if len(parts) != 3:
        raise InvalidToken("token: a signed JWT has three parts separated by dots")
    header, claims = _decode_json(parts[0]), _decode_json(parts[1])
    if header.get("alg") != "ES256":
        raise InvalidToken(f"token: algorithm {str(header.get('alg'))[:20]!r} (only ES256 is accepted)")
    subject, audience, expires = claims.get("sub"), claims.get("aud"), claims.get("exp")
    if not isinstance(subject, str) or not subject:
        raise InvalidToken("token: no sub")
    if isinstance(audience, str):  # RFC 7519 section 4.1.3 allows one name without a list
        audience = [audience]
    if not isinstance(audience, list) or not audience or not all(isinstance(name, str) for name in audience):
        raise InvalidToken("token: aud must name the hop that is called")
    if isinstance(expires, bool) or not isinstance(expires, int | float) or not 0 < expires < _LATEST:
        raise InvalidToken("token: exp must be a time in seconds since 1970")
    return Token(text, subject, tuple(audience), datetime.fromtimestamp(expires, UTC))


def verify(text: str, key: ec.EllipticCurvePublicKey) -> Token:
    """Read a token and check that `key` signed it; raise InvalidToken."""
    token = parse(text)
    head, _, encoded = text.rpartition(".")
    signature = _decode(encoded)
    if len(signature) != 2 * _COORDINATE:
        raise InvalidToken("token: the signature isn't ES256's 64 octets")
    r, s = (int.from_bytes(half, "big") for half in (signature[:_COORDINATE], signature[_COORDINATE:]))
    try:
        key.verify(utils.encode_dss_signature(r, s), head.encode(), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise InvalidToken(f"token: not signed by the certificate of {token.subject}") from error
    return token


def check_caller(text: str, *, caller: str, key: ec.EllipticCurvePublicKey, audience: str, now: datetime) -> Token:
    """Verify the token that `caller` sent with its call to `audience`; raise InvalidToken."""
    if not text:
        raise InvalidToken(f"token: metadata {METADATA} is missing")
    token = verify(text, key)
    if token.subject != caller:
        raise InvalidToken(f"token: sub {token.subject} isn't the certificate's {caller}")
    if audience not in token.audience:
        raise InvalidToken(f"token: made for {', '.join(token.audience)}, not for {audience}")
    check_expiry(token, now)
    return token


def check_expiry(token: Token, now: datetime) -> None:
    """Raise InvalidToken if the token's time is over."""
    if token.expires <= now:
        raise InvalidToken(f"token: of {token.subject} expired at {token.expires.isoformat()}")


def check_chain(chain: list[Token], now: datetime) -> None:
    """Check that each token was made for the subject of the one after it and that none expired."""
    for token in chain:
        check_expiry(token, now)
    for before, after in itertools.pairwise(chain):
        if after.subject not in before.audience:
            raise InvalidToken(f"token: of {before.subject} wasn't made for {after.subject}, which comes after it")


def public_key(certificate_pem: bytes) -> ec.EllipticCurvePublicKey:
    """Return the P-256 key of a certificate; raise InvalidToken for another kind of key."""
    key = x509.load_pem_x509_certificate(certificate_pem).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidToken("token: the caller's certificate must have an EC P-256 key to sign tokens")
    return key


@functools.lru_cache(maxsize=8)
def _signing_key(key_pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(key_pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidToken("token: this hop's own identity must have an EC P-256 key")
    return key


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _encode_json(value: dict[str, Any]) -> str:
    return _encode(json.dumps(value, separators=(",", ":")).encode())


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidToken("token: not base64url") from error


def _decode_json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(_decode(text))
    except (ValueError, RecursionError) as error:
        raise InvalidToken("token: a part isn't JSON") from error
    if not isinstance(value, dict):
        raise InvalidToken("token: a part isn't a JSON object")
    return value
