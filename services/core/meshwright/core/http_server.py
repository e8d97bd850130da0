"""An HTTP server in the service's own event loop: uvicorn as a guest, which leaves signals and logs to `process`.

It serves plain text, or TLS with an identity whose rotation needs no restart: every handshake takes the newest
certificate and bundle. uvicorn is imported when a server starts, because it costs more start time than all else here.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from meshwright.core import errors, listener
from meshwright.core.identity import IdentitySource, X509Identity

if TYPE_CHECKING:
    import uvicorn

Admit = Callable[[dict[str, Any] | None], bool]
"""Whether the owner of this certificate (as `ssl.SSLSocket.getpeercert` gives it) may speak."""


class HttpServer:
    """`async with HttpServer(name, address, application):`; `address` then holds the port that was taken for port 0.

    `address` is ``unix:/path`` (with the rights `socket_mode`) or ``host:port``; `application` is an ASGI application;
    `name` is told in errors and is the task's name. With `identity` it serves TLS: callers must have a certificate of
    the identity's bundle for which `admit` says yes, or none at all when `admit` is None. `options` are uvicorn's own.
    """

    def __init__(
        self,
        name: str,
        address: str,
        application: Any,
        *,
        identity: IdentitySource | None = None,
        admit: Admit | None = None,
        socket_mode: int = 0o600,
        **options: Any,
    ) -> None:
        self.address = address
        self._socket_mode = socket_mode
        self._name, self._application, self._admit, self._options = name, application, admit, options
        self._certificate = None if identity is None else _Certificate(identity, clients=admit is not None)
        self._started = asyncio.Event()
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Bind and serve; Unavailable when that isn't possible."""
        sock = listener.bind(self.address, mode=self._socket_mode)
        if not self._is_local():
            self.address = f"{self.address.rpartition(':')[0]}:{sock.getsockname()[1]}"
        try:
            self._server = self._build()
            await self._begin(self._server, sock)
        except BaseException:
            if self._task is not None:
                self._task.cancel()
            sock.close()
            self._forget()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop serving and remove the socket's file."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._forget()

    async def ended(self) -> None:
        """Return when the server has ended by itself, which it shouldn't; cancel it freely."""
        if self._task is not None:
            await asyncio.wait({self._task})

    def _forget(self) -> None:
        if self._certificate is not None:
            self._certificate.close()
        if self._is_local():
            listener.remove(self.address)

    def _is_local(self) -> bool:
        return self.address.startswith("unix:")

    async def _begin(self, server: uvicorn.Server, sock: socket.socket) -> None:
        self._task = asyncio.create_task(self._serve(server, sock), name=f"{self._name} {self.address}")
        await self._started.wait()
        if not server.started:
            await self._task  # raises what went wrong
            raise errors.Unavailable(f"the {self._name} listener {self.address} ended while starting")

    async def _serve(self, server: uvicorn.Server, sock: socket.socket) -> None:
        try:
            await server.serve(sockets=[sock])
        finally:
            self._started.set()

    def _build(self) -> uvicorn.Server:
        import uvicorn

        started = self._started

        class Guest(uvicorn.Server):
            """uvicorn without its handling of signals, which belong to `process`."""

            @contextlib.contextmanager
            def capture_signals(self) -> Any:
                yield

            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                started.set()

        certificate = self._certificate
        settings: dict[str, Any] = {
            "http": "auto" if self._admit is None else _guarded(self._admit),
            "ws": "none",
            "lifespan": "off",
            "log_config": None,
            "access_log": False,
            "server_header": False,
            "ssl_context_factory": None if certificate is None else lambda *_: certificate.context(),
            **self._options,
        }
        return Guest(uvicorn.Config(self._application, **settings))


def _guarded(admit: Admit) -> Any:
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Guarded(H11Protocol):
        """HTTP that is spoken only with callers who are admitted."""

        def connection_made(self, transport: Any) -> None:
            tls = transport.get_extra_info("ssl_object")
            if tls is not None and not admit(tls.getpeercert()):
                transport.write(b"HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                transport.close()
                self.data_received = lambda data: None  # type: ignore[method-assign]
                self.connection_lost = lambda exc: None  # type: ignore[method-assign]
                self.eof_received = lambda: None  # type: ignore[method-assign]
                return
            super().connection_made(transport)

    return Guarded


class _Certificate:
    """A TLS context that follows an identity.

    A context can be given new certificates but can't forget an old bundle: so each handshake is moved to a new one.
    """

    def __init__(self, identity: IdentitySource, *, clients: bool) -> None:
        self._identity, self._clients = identity, clients
        self._newest = listener.tls_context(identity.current(), clients=clients)
        self.close = identity.subscribe(self._rotate)

    def context(self) -> ssl.SSLContext:
        outer = listener.tls_context(self._identity.current(), clients=self._clients)
        outer.sni_callback = self._take_newest
        return outer

    def _rotate(self, identity: X509Identity) -> None:
        self._newest = listener.tls_context(identity, clients=self._clients)

    def _take_newest(self, connection: Any, _name: str | None, _outer: ssl.SSLContext) -> None:
        connection.context = self._newest
