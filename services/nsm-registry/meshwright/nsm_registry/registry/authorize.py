"""Who registers: the caller's token, the tokens of the hops before it, and who may stand in for others.

One decision to know: tokens of earlier hops can't be verified here, only their order. So a path with more than one
hop is believed from the mesh's managers alone; anybody else registers for itself. The first hop owns what it registers.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from meshwright.core import errors
from meshwright.core.identity import IdentitySource
from meshwright.nsm import allow, registry_path, tokens
from meshwright.nsm.errors import InvalidToken
from meshwright.nsm.registry_path import RegistryPath
from meshwright.nsm_registry.registry.chain import Exchange, Proceed


class Authorize:
    """`managers` are the SPIFFE IDs (a trailing * fits any ending) that may register for others."""

    def __init__(self, identity: IdentitySource | None, managers: Sequence[str], *, lifetime: timedelta) -> None:
        self._identity, self._managers, self._lifetime = identity, tuple(managers), lifetime

    async def __call__(self, message: Any, exchange: Exchange, proceed: Proceed) -> Any:
        """Verify, note the owner and the latest expiry, and go on."""
        if exchange.sent_path is None:
            raise errors.Forbidden("metadata path is missing (send the registration's path as JSON)")
        sent = registry_path.parse(exchange.sent_path)
        now = exchange.clock.now()
        if self._identity is None:  # plain text on loopback: nobody is known, so everything belongs to everybody
            exchange.path, exchange.latest = sent.with_caller(exchange.token, ""), now + self._lifetime
            return await proceed(message, exchange)
        own = self._identity.current()
        caller = exchange.caller
        if not caller.spiffe_id or caller.key is None:
            raise errors.Unauthorized("the caller showed no certificate with a SPIFFE ID (use mutual TLS)")
        token = tokens.check_caller(
            exchange.token, caller=caller.spiffe_id, key=caller.key, audience=own.spiffe_id, now=now
        )
        chain = [tokens.parse(text) for text in sent.tokens[: sent.index]]
        if chain and not allow.allows(self._managers, caller.spiffe_id):
            raise errors.Forbidden(f"{caller.spiffe_id} may not register for others (--managers says who may)")
        tokens.check_chain([*chain, token], now)
        answer = tokens.issue(own, caller.spiffe_id, now + self._lifetime)
        exchange.path = sent.with_caller(token.text, answer.text)
        exchange.owner = chain[0].subject if chain else token.subject
        exchange.latest = min(answer.expires, token.expires, *(earlier.expires for earlier in chain))
        if exchange.registering:
            _note_hops(message, exchange.path)
        return await proceed(message, exchange)


def _note_hops(message: Any, path: RegistryPath) -> None:
    """Write the hops' SPIFFE IDs into the object, the owner's first."""
    try:
        message.path_ids[:] = [tokens.parse(text).subject for text in path.tokens]
    except InvalidToken as error:
        raise errors.Forbidden(f"metadata path: {error}") from error
