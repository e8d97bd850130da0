"""The keys that sign JWT-SVIDs, each with the moments at which it is published, begins, ends and is forgotten.

One decision to know: a key's moments are fixed when it is made, and every replica and every reader goes by them. So
nobody has to lead: a successor is published half a life before its predecessor ends and begins a quarter of a life
later, when every agent has long had it; and a key is published until the last token that it signed has ended.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

LEEWAY = timedelta(seconds=60)
"""What the clocks of signer and verifier may differ."""

_COORDINATE_BYTES = 32


@dataclass(frozen=True, slots=True)
class JwtKey:
    """An EC P-256 key. `id` is its thumbprint (RFC 7638), the ``kid`` of tokens and of the key set."""

    private: ec.EllipticCurvePrivateKey = field(repr=False)
    published: datetime
    begins: datetime
    ends: datetime
    forgotten: datetime

    @property
    def id(self) -> str:
        """The key's thumbprint."""
        members = coordinates(self.private.public_key())
        canonical = json.dumps(members, separators=(",", ":"), sort_keys=True)
        return _base64(hashlib.sha256(canonical.encode()).digest())

    @property
    def public(self) -> dict[str, str]:
        """The public key as a JWK (RFC 7517), in the form of SPIFFE bundles (SPIFFE Trust Domain and Bundle, 4.2)."""
        return {"use": "jwt-svid", "kid": self.id, **coordinates(self.private.public_key())}


@dataclass(frozen=True, slots=True)
class JwtKeys:
    """All keys that aren't forgotten. `key_life` is how long one signs, `token_life` the longest life of a token."""

    keys: tuple[JwtKey, ...]
    key_life: timedelta
    token_life: timedelta

    def signing(self, now: datetime) -> JwtKey | None:
        """Return the key that signs: the newest that has begun and not ended.

        When the clock was set back before all of them the first is taken: who verifies has it, too.
        """
        living = [key for key in self.keys if now < key.ends]
        begun = [key for key in living if key.begins <= now]
        return (
            max(begun, key=lambda key: key.begins) if begun else min(living, key=lambda key: key.begins, default=None)
        )

    def kept_up(self, now: datetime) -> JwtKeys:
        """Return the set as it has to be now: without forgotten keys, with a successor when one is due."""
        keys = tuple(key for key in self.keys if now < key.forgotten)
        newest = max((key.ends for key in keys), default=now)
        if newest - now <= self.key_life / 2:
            # With no key left to sign (a first start, or a long sleep) there is nobody to wait for.
            keys += (self._new(now, now if newest <= now else now + self.key_life / 4),)
        return self if keys == self.keys else JwtKeys(keys, self.key_life, self.token_life)

    def due(self, now: datetime) -> timedelta:
        """Return after which time to look at `kept_up` again."""
        newest = max((key.ends for key in self.keys), default=now)
        moments = [newest - self.key_life / 2, *(key.forgotten for key in self.keys)]
        return max(min(moments) - now, timedelta(seconds=1))

    def _new(self, now: datetime, begins: datetime) -> JwtKey:
        ends = begins + self.key_life
        private = ec.generate_private_key(ec.SECP256R1())
        return JwtKey(private, now, begins, ends, ends + self.token_life + LEEWAY)


def coordinates(public: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """Return the members that make a P-256 key a JWK (RFC 7518 section 6.2.1)."""
    numbers = public.public_numbers()
    x, y = (number.to_bytes(_COORDINATE_BYTES, "big") for number in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "x": _base64(x), "y": _base64(y)}


def key_set(keys: Iterable[Mapping[str, Any]]) -> bytes:
    """Return JWKs as a JWK set (RFC 7517 section 5)."""
    return json.dumps({"keys": [dict(key) for key in keys]}, separators=(",", ":")).encode()


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
