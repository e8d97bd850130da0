"""JWT-SVIDs of this node's workloads: asked of citadel, kept for half of their life, and judged on the node.

One decision to know: a token is kept for the registration and the audiences that it was made for, so that a workload
that asks before every call costs citadel one signature in minutes. What is kept is bounded; the least used goes first.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Protocol

import jwt

from meshwright.citadel.agent.workloads import Workloads
from meshwright.citadel.ca import jwt_svid
from meshwright.citadel.ca.jwt_svid import Token
from meshwright.citadel.registrations.model import Registration
from meshwright.core import clock as clocks

MAX_KEPT = 4096


class TokenSigner(Protocol):
    """Whoever makes tokens: citadel, by `agent.upstream`."""

    async def sign_token(self, registration: Registration, audience: Sequence[str]) -> Token:
        """Return a token."""
        ...


class Tokens:
    """What the Workload API says of JWT-SVIDs. Belongs to one event loop."""

    def __init__(self, workloads: Workloads, signer: TokenSigner, clock: clocks.Clock) -> None:
        self._workloads, self._signer, self._clock = workloads, signer, clock
        self._kept: OrderedDict[tuple[Registration, tuple[str, ...]], Token] = OrderedDict()
        self._read: tuple[bytes, dict[str, jwt.PyJWK]] = (b"", {})

    async def token(self, registration: Registration, audience: tuple[str, ...]) -> Token:
        """Return a token with at least half of its life before it; Unavailable when citadel makes none."""
        key = (registration, audience)
        kept = self._kept.get(key)
        now = self._clock.now()
        if kept is None or now >= kept.issued + (kept.expires - kept.issued) / 2:
            kept = await self._signer.sign_token(registration, audience)
            self._kept[key] = kept
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return kept

    def claims(self, token: str, audience: str) -> dict[str, Any]:
        """Return the claims of a token that somebody showed; raise TokenInvalid when it isn't valid for `audience`."""
        return jwt_svid.verify(token, audience, {self._workloads.trust_domain: self._keys()}, self._clock.now())

    def _keys(self) -> dict[str, jwt.PyJWK]:
        text, keys = self._read
        if text is not self._workloads.token_keys:
            text = self._workloads.token_keys
            keys = {each["kid"]: jwt.PyJWK(each, "ES256") for each in json.loads(text)["keys"]} if text else {}
            self._read = (text, keys)
        return keys
