"""The mutating admission webhook: HTTPS with the manager's own certificate, whose DNS name is the manager's Service.

One decision to know: the API server has no identity in the mesh, so no client certificate is asked for. What is served
is a pure function of the request, bounded in size and number; it tells a caller nothing but the sidecar's image and the
platform's addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import fastapi
import structlog
import uvicorn
from fastapi import responses

from meshwright.core import errors, listener
from meshwright.core.identity import IdentitySource, X509Identity
from meshwright.manager import metrics
from meshwright.manager.inject import review
from meshwright.manager.inject.options import Options

MAX_BODY = 4 * 1024 * 1024  # the API server takes objects of 1.5 MiB, and sends old and new
_MAX_CONNECTIONS = 64
_BODY_SECONDS = 8.0  # below the 10 s that the API server waits
_GRACE_SECONDS = 2

_log = structlog.get_logger(__name__)


class Webhook:
    """`async with Webhook(address, identity, options):`; `address` then holds the port that was taken for port 0."""

    def __init__(self, address: str, identity: IdentitySource, options: Options) -> None:
        self.address = address
        self._identity, self._options = identity, options
        self._tls = listener.tls_context(identity.current(), clients=False)
        self._unsubscribe: Callable[[], None] = lambda: None
        self._started = asyncio.Event()
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        sock = listener.bind(self.address)
        self.address = f"{self.address.rpartition(':')[0]}:{sock.getsockname()[1]}"
        self._unsubscribe = self._identity.subscribe(self._rotate)
        webhook = self

        class Server(uvicorn.Server):
            """uvicorn as a guest of our loop: signals belong to `process`."""

            @contextlib.contextmanager
            def capture_signals(self) -> Any:
                yield

            async def startup(self, sockets: Any = None) -> None:
                await super().startup(sockets)
                webhook._started.set()

        self._server = Server(
            uvicorn.Config(
                application(self._options),
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                limit_concurrency=_MAX_CONNECTIONS,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=_GRACE_SECONDS,
                h11_max_incomplete_event_size=64 * 1024,
                ssl_context_factory=lambda *_: self._context(),
            )
        )
        self._task = asyncio.create_task(self._serve(self._server, sock), name=f"webhook {self.address}")
        await self._started.wait()
        if not self._server.started:
            await self._task
            raise errors.Unavailable(f"the webhook on {self.address} ended while starting")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unsubscribe()
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task

    async def _serve(self, server: uvicorn.Server, sock: Any) -> None:
        try:
            await server.serve(sockets=[sock])
        finally:
            self._started.set()

    def _context(self) -> ssl.SSLContext:
        outer = listener.tls_context(self._identity.current(), clients=False)
        outer.sni_callback = self._take_newest
        return outer

    def _rotate(self, identity: X509Identity) -> None:
        self._tls = listener.tls_context(identity, clients=False)

    def _take_newest(self, connection: Any, _name: str | None, _outer: ssl.SSLContext) -> None:
        connection.context = self._tls


def application(options: Options) -> fastapi.FastAPI:
    """Return the HTTP application: POST /inject, GET /healthz."""
    app = fastapi.FastAPI(title="Meshwright injection", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"state": "ok"}

    @app.post("/inject")
    async def inject(request: fastapi.Request) -> responses.JSONResponse:
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                body = await _bounded(request)
            answered = review.answer(json.loads(body), options)
        except TimeoutError:
            return _fault(408, f"the body didn't come in {_BODY_SECONDS:g} s")
        except errors.Exhausted as error:
            return _fault(413, str(error))
        except (errors.ConfigError, ValueError, RecursionError) as error:
            return _fault(400, str(error) or "the body is nested too deeply")
        response = answered["response"]
        outcome = "refused" if not response["allowed"] else "injected" if "patch" in response else "unchanged"
        metrics.INJECTIONS.labels(outcome).inc()
        if outcome == "refused":
            _log.warning("injection_refused", reason=response["status"]["message"][:500])
        return responses.JSONResponse(answered)

    return app


async def _bounded(request: fastapi.Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise errors.Exhausted(f"the body has more than {MAX_BODY} bytes")
    return bytes(body)


def _fault(status: int, message: str) -> responses.JSONResponse:
    metrics.INJECTIONS.labels("malformed").inc()
    return responses.JSONResponse({"error": message}, status_code=status)
