"""Checks the caller's token and the chain before it, and signs this hop's own for the answer; right after the path.

Closing needs only the caller's own token: those of earlier hops may be over, which is often why it is closed.
"""

from __future__ import annotations

from datetime import timedelta

from meshwright.core import errors
from meshwright.core.identity import IdentitySource
from meshwright.nsm import tokens
from meshwright.nsm.chain import Caller, Exchange, Proceed
from meshwright.nsm.wire import Connection, NetworkServiceRequest


class Tokens:
    """`lifetime` bounds what this hop signs; without an identity (plain text on loopback) there is nothing to check."""

    def __init__(self, identity: IdentitySource | None, *, lifetime: timedelta) -> None:
        self._identity, self._lifetime = identity, lifetime

    async def __call__(self, request: NetworkServiceRequest, exchange: Exchange, proceed: Proceed) -> Connection:
        """Verify, fill in the caller's segment, go on, and sign."""
        if exchange.caller is None:
            return await proceed(request, exchange)
        segments = request.connection.path.path_segments
        before = exchange.caller_index
        now = exchange.clock.now()
        if self._identity is None:
            exchange.expires = now + self._lifetime
            segments[before].expires.FromDatetime(exchange.expires)
            own_text, own_expires = "", exchange.expires
        else:
            own = self._identity.current()
            caller = _verified(exchange.caller)
            key = caller.key
            assert key is not None
            token = tokens.check_caller(
                exchange.token, caller=caller.spiffe_id, key=key, audience=own.spiffe_id, now=now
            )
            segments[before].token = token.text
            segments[before].expires.FromDatetime(token.expires)
            if not exchange.closing:
                tokens.check_chain([tokens.parse(segment.token) for segment in segments[: before + 1]], now)
            exchange.expires = token.expires
            answer = tokens.issue(own, caller.spiffe_id, now + self._lifetime)
            own_text, own_expires = answer.text, answer.expires
        segments[before + 1].token = own_text
        segments[before + 1].expires.FromDatetime(own_expires)
        return await proceed(request, exchange)


def _verified(caller: Caller) -> Caller:
    if not caller.spiffe_id or caller.key is None:
        raise errors.Unauthorized("the caller showed no certificate with a SPIFFE ID (use mutual TLS)")
    return caller
