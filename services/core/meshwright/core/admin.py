"""Health and metrics over HTTP, in the service's own event loop: /healthz (alive), /readyz (serving), /metrics.

Reached by a Unix socket that only this user opens (0600), or over TCP with mutual TLS by the platform's identities.
FastAPI and uvicorn are imported when the listener starts, because they cost more start time than all else here.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from meshwright.core import errors, listener
from meshwright.core.health import Health
from meshwright.core.identity import SYSTEM_NAMESPACE, IdentitySource, X509Identity

if TYPE_CHECKING:
    import uvicorn

_MAX_CONNECTIONS = 64  # at once; further ones are answered 503
_GRACE_SECONDS = 2
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def _all_metrics() -> bytes:
    import prometheus_client

    return prometheus_client.generate_latest()


class Admin:
    """`async with Admin(address, health, identity):`; does nothing when `address` is None.

    `address` is ``unix:/path`` or ``host:port``; `metrics` returns Prometheus text (by default everything that is
    registered with prometheus_client); `callers` are the SPIFFE IDs that may ask over TCP, a trailing ``*`` fits any
    ending (by default this trust domain's platform parts).
    """

    def __init__(
        self,
        address: str | None,
        health: Health,
        identity: IdentitySource | None = None,
        *,
        metrics: Callable[[], bytes] = _all_metrics,
        callers: Sequence[str] | None = None,
    ) -> None:
        if address and not address.startswith("unix:") and identity is None:
            raise errors.ConfigError(
                f"{address} would be served in plain text", field="admin", remedy="use unix:/path, or give an identity"
            )
        self.address = address
        self._health, self._identity, self._metrics, self._callers = health, identity, metrics, callers
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None
        self._started = asyncio.Event()
        self._unsubscribe: Callable[[], None] = lambda: None
        self._tls: ssl.SSLContext | None = None

    async def __aenter__(self) -> Self:
        """Bind and serve; `address` then holds the port that was taken for port 0."""
        if self.address is None:
            return self
        sock = listener.bind(self.address)
        if not self.address.startswith("unix:"):
            self.address = f"{self.address.rpartition(':')[0]}:{sock.getsockname()[1]}"
        try:
            self._server = self._build()
            await self._begin(sock)
        except BaseException:
            if self._task is not None:
                self._task.cancel()
            sock.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop serving and remove the socket."""
        self._unsubscribe()
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self.address and self.address.startswith("unix:"):
            listener.remove(self.address)

    def _build(self) -> uvicorn.Server:
        import uvicorn
        from uvicorn.protocols.http.h11_impl import H11Protocol

        admin = self

        class Protocol(H11Protocol):
            """HTTP that is spoken only with allowed identities."""

            def connection_made(self, transport: Any) -> None:
                tls = transport.get_extra_info("ssl_object")
                if tls is not None and not admin._allows(tls.getpeercert()):
                    transport.write(b"HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                    transport.close()
                    self.data_received = lambda data: None  # type: ignore[method-assign]
                    self.connection_lost = lambda exc: None  # type: ignore[method-assign]
                    self.eof_received = lambda: None  # type: ignore[method-assign]
                    return
                super().connection_made(transport)

        class Server(uvicorn.Server):
            """uvicorn as a guest of our loop: signals belong to `process`."""

            @contextlib.contextmanager
            def capture_signals(self) -> Any:
                yield

            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                admin._started.set()

        config = uvicorn.Config(
            self._application(),
            http=Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            h11_max_incomplete_event_size=16 * 1024,
            ssl_context_factory=None if self._plain() else self._context_factory,
        )
        return Server(config)

    async def _begin(self, sock: socket.socket) -> None:
        assert self._server is not None
        server = self._server

        async def serve() -> None:
            try:
                await server.serve(sockets=[sock])
            finally:
                self._started.set()

        self._task = asyncio.create_task(serve(), name=f"admin {self.address}")
        await self._started.wait()
        if not server.started:
            await self._task  # raises what went wrong
            raise errors.Unavailable(f"admin listener {self.address} ended while starting")

    def _application(self) -> Any:
        import fastapi
        from fastapi import responses

        application = fastapi.FastAPI(title="Meshwright admin", docs_url=None, redoc_url=None, openapi_url=None)

        def report(status: int) -> Any:
            parts = {
                part: {"state": condition.state.value, "reason": condition.reason}
                for part, condition in self._health.conditions().items()
            }
            body = {"state": self._health.state().value, "ready": self._health.ready(), "parts": parts}
            return responses.JSONResponse(body, status_code=status)

        @application.get("/healthz")
        async def healthz() -> Any:
            """200 as long as this process's loop answers; a failed part is for /readyz."""
            return report(200)

        @application.get("/readyz")
        async def readyz() -> Any:
            """200 when this process serves, 503 when a part has failed."""
            return report(200 if self._health.ready() else 503)

        @application.get("/metrics")
        async def metrics() -> Any:
            """Metrics in Prometheus' text format."""
            return responses.Response(self._metrics(), media_type=_PROMETHEUS)

        return application

    def _plain(self) -> bool:
        return self.address is not None and self.address.startswith("unix:")

    def _context_factory(self, _config: Any, _default: Any) -> ssl.SSLContext:
        assert self._identity is not None
        self._tls = listener.tls_context(self._identity.current())
        # A context can be given new certificates but can't forget an old bundle: each handshake takes the newest one.
        outer = listener.tls_context(self._identity.current())
        outer.sni_callback = self._take_newest
        self._unsubscribe = self._identity.subscribe(self._rotate)
        return outer

    def _rotate(self, identity: X509Identity) -> None:
        self._tls = listener.tls_context(identity)

    def _take_newest(self, connection: Any, _name: str | None, _outer: ssl.SSLContext) -> None:
        connection.context = self._tls

    def _allows(self, certificate: Any) -> bool:
        assert self._identity is not None
        patterns = self._callers
        if patterns is None:
            patterns = [f"spiffe://{self._identity.current().trust_domain}/ns/{SYSTEM_NAMESPACE}/sa/*"]
        names = [value for kind, value in (certificate or {}).get("subjectAltName", ()) if kind == "URI"]
        return any(
            name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
            for name in names
            for pattern in patterns
        )
