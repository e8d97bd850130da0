"""Who may call what: SPIFFE ID patterns for each service or method, deny by default.

The native front evaluates the same table in Rust.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from meshwright.core import errors


def peer_id(context: Any) -> str | None:
    """Return the caller's SPIFFE ID as proved by its certificate; None without mutual TLS."""
    for name in context.auth_context().get("x509_subject_alternative_name", ()):
        text = name.decode() if isinstance(name, bytes) else name
        if text.startswith("spiffe://"):
            return str(text)
    return None


def names(context: Any) -> list[str]:
    """Return the names that rules know a caller by: its SPIFFE ID, and "dns:" with each DNS name of its certificate."""
    hosts = [f"dns:{name.decode().lower()}" for name in context.auth_context().get("peer_dns", ())]
    own = peer_id(context)
    return hosts if own is None else [own, *hosts]


@dataclass(frozen=True, slots=True)
class Authorization:
    """Rules in order: the first whose path prefix fits decides; no rule means nobody.

    `rules` are pairs of a path prefix such as ``/istio.mixer.v1.Mixer/`` (or a whole method path) and the SPIFFE IDs
    that may call it, or ``dns:host`` for callers known by a DNS name; a trailing ``*`` fits any ending.
    """

    rules: Sequence[tuple[str, Sequence[str]]] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        for prefix, patterns in self.rules:
            if not prefix.startswith("/"):
                raise errors.ConfigError(
                    f"{prefix!r} is no method's path", field="authorize", remedy='write "/package.Service/"'
                )
            for pattern in patterns:
                if "*" in pattern[:-1]:
                    raise errors.ConfigError(
                        f"{pattern!r}: `*` may stand at the end only",
                        field="authorize",
                        remedy="write several patterns",
                    )

    @property
    def names_unix_users(self) -> bool:
        """Whether a rule is for callers without TLS, whom only the kernel can name ("unix:uid=1000")."""
        return any(pattern.startswith("unix:") for _, patterns in self.rules for pattern in patterns)

    @property
    def names_hosts(self) -> bool:
        """Whether a rule is for callers known by DNS name: only then those without a SPIFFE ID are anybody."""
        return any(pattern.startswith("dns:") for _, patterns in self.rules for pattern in patterns)

    def allows(self, method: str, *callers: str | None) -> bool:
        """Return whether a caller with one of these names may call `method`, a path: ``/package.Service/Method``."""
        for prefix, patterns in self.rules:
            if method.startswith(prefix):
                return any(_fits(pattern, caller) for pattern in patterns for caller in callers if caller is not None)
        return False


def _fits(pattern: str, caller: str) -> bool:
    if pattern.startswith("dns:"):
        pattern = pattern.lower()
    return caller.startswith(pattern[:-1]) if pattern.endswith("*") else caller == pattern


class AuthorizationInterceptor(grpc.aio.ServerInterceptor):
    """Refuses with PERMISSION_DENIED before the handler sees anything."""

    def __init__(self, authorization: Authorization) -> None:
        self._authorization = authorization

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Wrap the handler so that it runs for callers that the table allows."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        for kind in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
            behaviour = getattr(handler, kind)
            if behaviour is not None:
                # A handler of many responses is a generator, or a coroutine that writes them.
                yields = kind.endswith("stream") and not inspect.iscoroutinefunction(behaviour)
                guarded = self._stream if yields else self._unary
                return handler._replace(**{kind: functools.partial(guarded, method, behaviour)})
        return handler

    async def _check(self, method: str, context: Any) -> None:
        callers = names(context)
        if not self._authorization.names_hosts:
            callers = [name for name in callers if not name.startswith("dns:")]
        if not self._authorization.allows(method, *callers):
            who = callers[0] if callers else "a caller without a certificate"
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, f"{who} may not call {method}")

    async def _unary(self, method: str, behaviour: Any, request: Any, context: Any) -> Any:
        await self._check(method, context)
        return await behaviour(request, context)

    async def _stream(self, method: str, behaviour: Any, request: Any, context: Any) -> Any:
        await self._check(method, context)
        async for response in behaviour(request, context):
            yield response
