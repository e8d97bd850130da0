"""A grpc.aio channel that follows the rotation of its identity and gives every unary call a deadline.

One decision to know: grpcio binds a certificate to a channel for life and verifies DNS names only. So a rotation opens
a new channel for new calls (those under way end on the old one), and peers are the platform's parts, whose certificates
carry a DNS name that citadel gives to nobody else. Peers that have only a SPIFFE ID need the native channel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import grpc
from meshwright.core import errors, settings
from meshwright.core.grpc import limits
from meshwright.core.grpc.tracing import client_interceptors
from meshwright.core.identity import SYSTEM_NAMESPACE, IdentitySource, part_dns

_OPTIONS = [
    ("grpc.max_receive_message_length", limits.DEFAULT.message_size),
    ("grpc.max_send_message_length", limits.DEFAULT.message_size),
    ("grpc.max_metadata_size", limits.DEFAULT.metadata_size),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),  # parts of one mesh restart within seconds
]
_RETIREMENT_SECONDS = 3600.0  # how long streams may go on over the channel of a rotated identity


class Channel:
    """Usable with generated stubs. `peer` is the SPIFFE ID that the server must have.

    `interceptors` None passes the current trace on.
    """

    def __init__(
        self,
        target: str,
        identity: IdentitySource | None,
        *,
        peer: str | None = None,
        interceptors: Sequence[Any] | None = None,
    ) -> None:
        if identity is None and not settings.is_local(target):
            raise errors.ConfigError(f"{target} isn't local", field="target", remedy="give an identity")
        if identity is not None and peer is None:
            raise errors.ConfigError("who must answer isn't said", field="peer", remedy="give the server's SPIFFE ID")
        self._target, self._identity, self._peer = target, identity, peer
        self._interceptors = client_interceptors() if interceptors is None else list(interceptors)
        self._current: Any = None
        self._bound: dict[tuple[str, str], Any] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._unsubscribe = identity.subscribe(lambda _: self._retire()) if identity else None

    def unary_unary(self, method: str, *arguments: Any, **options: Any) -> Callable[..., Any]:
        """Return the multi-callable of a unary call; a deadline is set when the caller gives none."""

        def call(request: Any, *, timeout: float | None = None, **call_options: Any) -> Any:
            bound = self._bind("unary_unary", method, arguments, options)
            return bound(request, timeout=timeout or limits.DEFAULT_DEADLINE_SECONDS, **call_options)

        return call

    def unary_stream(self, method: str, *arguments: Any, **options: Any) -> Callable[..., Any]:
        """Return the multi-callable of a server stream."""
        return self._late("unary_stream", method, arguments, options)

    def stream_unary(self, method: str, *arguments: Any, **options: Any) -> Callable[..., Any]:
        """Return the multi-callable of a client stream."""
        return self._late("stream_unary", method, arguments, options)

    def stream_stream(self, method: str, *arguments: Any, **options: Any) -> Callable[..., Any]:
        """Return the multi-callable of a stream in both directions."""
        return self._late("stream_stream", method, arguments, options)

    async def close(self, grace: float | None = None) -> None:
        """Close the channel and those that rotation left behind."""
        if self._unsubscribe:
            self._unsubscribe()
            self._unsubscribe = None
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        if self._current is not None:
            await self._current.close(grace)
            self._current = None

    async def __aenter__(self) -> Self:
        """Use the channel for the length of the context."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self.close()

    def _late(self, kind: str, method: str, arguments: Any, options: Any) -> Callable[..., Any]:
        return lambda *given, **named: self._bind(kind, method, arguments, options)(*given, **named)

    def _bind(self, kind: str, method: str, arguments: Any, options: Any) -> Any:
        if self._current is None:
            self._current = self._open()
        key = (kind, method)
        if key not in self._bound:
            self._bound[key] = getattr(self._current, kind)(method, *arguments, **options)
        return self._bound[key]

    def _open(self) -> Any:
        options: list[tuple[str, Any]] = list(_OPTIONS)
        if self._target.startswith("unix:"):
            # grpcio's default is the percent-encoded path, which isn't a valid authority (RFC 3986 section 3.2): strict
            # HTTP/2 servers reset the stream.
            options.append(("grpc.default_authority", "localhost"))
        if self._identity is None:
            return grpc.aio.insecure_channel(self._target, options=options, interceptors=self._interceptors)
        identity = self._identity.current()
        credentials = grpc.ssl_channel_credentials(identity.bundle_pem, identity.key_pem, identity.cert_chain_pem)
        options.append(("grpc.ssl_target_name_override", _dns_name(self._peer or "")))
        return grpc.aio.secure_channel(self._target, credentials, options=options, interceptors=self._interceptors)

    def _retire(self) -> None:
        old, self._current, self._bound = self._current, None, {}
        if old is not None:
            task = asyncio.get_running_loop().create_task(_close(old), name=f"retire channel {self._target}")
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)


async def _close(channel: Any) -> None:
    try:
        await channel.close(_RETIREMENT_SECONDS)
    except asyncio.CancelledError:
        await channel.close(None)
        raise


def _dns_name(peer: str) -> str:
    marker = f"/ns/{SYSTEM_NAMESPACE}/sa/"
    if marker not in peer:
        raise errors.ConfigError(
            f"grpcio can't verify {peer!r}", field="peer", remedy="use meshwright.dataplane.grpc.NativeChannel"
        )
    return part_dns(peer.rpartition("/")[2])
