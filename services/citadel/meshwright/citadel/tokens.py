"""One-time tokens: how a part of the platform gets its first certificate.

One decision to know: the store holds only a token's SHA-256 (a token has 256 random bits, so no salt is needed), and
using one is a delete at the revision that was read: of two uses at the same moment exactly one wins.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from meshwright.citadel.errors import TokenRefused
from meshwright.core import clock as clocks
from meshwright.core import errors
from meshwright.core.store import Entry, Store

PREFIX = "/meshwright/citadel/tokens/"
DEFAULT_TTL = timedelta(minutes=10)
MAX_TTL = timedelta(days=1)
MAX_OUTSTANDING = 10_000


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token is good for: the part, and for an agent the node."""

    part: str
    node: str
    expires: datetime


@dataclass(frozen=True, slots=True)
class Minted:
    """A new token; the only time that it can be seen."""

    token: str
    grant: Grant

    def __repr__(self) -> str:
        """Show the grant only: representations end in logs."""
        return f"Minted({self.grant})"


class Tokens:
    """The tokens of one store."""

    def __init__(self, store: Store, clock: clocks.Clock) -> None:
        self._store, self._clock = store, clock

    async def mint(self, part: str, node: str, ttl: timedelta) -> Minted:
        """Make a token. Raise ConfigError for a lifetime out of range, Exhausted when too many are outstanding."""
        if not timedelta(0) < ttl <= MAX_TTL:
            raise errors.ConfigError(f"{ttl}", field="ttl", remedy=f"above 0 and at most {MAX_TTL}")
        if await self._sweep() >= MAX_OUTSTANDING:
            raise errors.Exhausted(f"{MAX_OUTSTANDING} one-time tokens are outstanding (wait until some expire)")
        token = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
        grant = Grant(part, node, self._clock.now() + ttl)
        await self._store.put(_key(token), _encode(grant), expect=0)
        return Minted(token, grant)

    async def use(self, token: str) -> Grant:
        """Use up a token and return what it was for; raise TokenRefused, also for all but one of two uses at once."""
        entry = await self._store.get(_key(token))
        if entry is None:
            raise TokenRefused
        grant = _decode(entry)
        try:
            deleted = await self._store.delete(entry.key, expect=entry.revision)
        except errors.Conflict:
            deleted = False
        if not deleted or self._clock.now() >= grant.expires:
            raise TokenRefused
        return grant

    async def look(self, token: str) -> Grant:
        """Return what a token is for without using it, so that a bad request doesn't cost the token."""
        entry = await self._store.get(_key(token))
        if entry is None or self._clock.now() >= (grant := _decode(entry)).expires:
            raise TokenRefused
        return grant

    async def _sweep(self) -> int:
        """Delete what has expired; return how many are outstanding."""
        entries, _ = await self._store.list(PREFIX)
        now, outstanding = self._clock.now(), 0
        for entry in entries:
            if now < _decode(entry).expires:
                outstanding += 1
            else:
                await self._store.delete(entry.key)
        return outstanding


def _key(token: str) -> str:
    return PREFIX + hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _encode(grant: Grant) -> bytes:
    return json.dumps({"part": grant.part, "node": grant.node, "expires": grant.expires.isoformat()}).encode()


def _decode(entry: Entry) -> Grant:
    try:
        record = json.loads(entry.value)
        return Grant(record["part"], record["node"], datetime.fromisoformat(record["expires"]))
    except (ValueError, KeyError, TypeError) as error:
        raise errors.Unavailable(f"the record at {entry.key} is damaged (delete it)") from error
