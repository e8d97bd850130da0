"""The way to an etcd cluster: one channel for each endpoint, failover, deadlines, and errors in our words.

One decision to know: a read is tried again on every endpoint until its deadline; a write only when it surely never left
this process, because a repeated write could lose against its own first attempt.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc

from meshwright.core import errors

MAX_MESSAGE = 16 * 1024 * 1024  # a page of a list, or a watch's fragment; both are asked for in smaller parts
_FIRST_PAUSE, _LAST_PAUSE = 0.1, 1.0
_NEVER_SENT = ("failed to connect", "connection refused", "no such file", "dns resolution failed", "handshake")

_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.enable_http_proxy", 0),
    ("grpc.keepalive_time_ms", 10_000),  # etcd refuses pings more often than every 5 s
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),  # two users in one process must not share a certificate
]


class Endpoints:
    """Channels to the members of one cluster; calls go to one member until it fails."""

    def __init__(self, endpoints: Sequence[str], tls: Path | None) -> None:
        if not endpoints:
            raise errors.ConfigError("no endpoint given", field="etcd", remedy="write --etcd host:port,host:port")
        credentials = _credentials(tls) if tls else None
        self.names = tuple(endpoints)
        self._channels: list[Any] = [
            grpc.aio.secure_channel(name, credentials, options=_OPTIONS)
            if credentials
            else grpc.aio.insecure_channel(name, options=_OPTIONS)
            for name in endpoints
        ]
        self._stubs: dict[tuple[int, Any], Any] = {}
        self._current = 0

    async def close(self) -> None:
        """Close all channels."""
        await asyncio.gather(*(channel.close() for channel in self._channels))

    @property
    def current(self) -> int:
        """The number of the member that calls go to."""
        return self._current

    def leave(self, member: int) -> None:
        """Go to the next member, unless another call has done so already."""
        if self._current == member:
            self._current = (member + 1) % len(self._channels)

    def stub(self, kind: Any, member: int) -> Any:
        """Return the stub of a service on one member."""
        if (member, kind) not in self._stubs:
            self._stubs[member, kind] = kind(self._channels[member])
        return self._stubs[member, kind]

    async def call(
        self, kind: Any, method: str, request: Any, *, timeout: float, subject: str, repeatable: bool = False
    ) -> Any:
        """Call a unary method; `subject` names the object in errors; `repeatable` says that twice does no harm."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        pause, tries = _FIRST_PAUSE, 0
        while True:
            member, left = self._current, deadline - loop.time()
            several = repeatable and len(self._channels) > 1
            attempt = max(left / 2, 0.1) if several else left  # leaves time for another member when one hangs
            try:
                return await getattr(self.stub(kind, member), method)(request, timeout=max(attempt, 0.001))
            except grpc.aio.AioRpcError as error:
                tries += 1
                left = deadline - loop.time()
                if not _worth_another(error, repeatable) or left <= pause:
                    raise translate(error, subject) from error
                self.leave(member)
            if tries % len(self._channels) == 0:
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, _LAST_PAUSE)


def _worth_another(error: grpc.aio.AioRpcError, repeatable: bool) -> bool:
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        details = (error.details() or "").lower()
        return repeatable or any(words in details for words in _NEVER_SENT)
    return repeatable and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


_KINDS: dict[grpc.StatusCode, Callable[[str], errors.MeshwrightError]] = {
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.PERMISSION_DENIED: errors.Forbidden,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthorized,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.Exhausted,
    grpc.StatusCode.INVALID_ARGUMENT: errors.ConfigError,
    grpc.StatusCode.FAILED_PRECONDITION: errors.Conflict,
}


def translate(error: grpc.aio.AioRpcError, subject: str) -> errors.MeshwrightError:
    """Return etcd's refusal as one of our errors, naming what was asked for."""
    details = (error.details() or error.code().name).removeprefix("etcdserver: ")
    return _KINDS.get(error.code(), errors.Unavailable)(f"etcd, {subject}: {details}")


def _credentials(folder: Path) -> grpc.ChannelCredentials:
    try:
        ca, key, certificate = ((folder / f"{name}.pem").read_bytes() for name in ("ca", "key", "cert"))
    except OSError as error:
        raise errors.ConfigError(
            f"can't read {error.filename}: {error.strerror}",
            field="etcd_tls",
            remedy="the folder must hold cert.pem, key.pem and ca.pem",
        ) from error
    return grpc.ssl_channel_credentials(ca, key, certificate)
