"""The mutating admission webhook: HTTPS with the manager's own certificate, whose DNS name is the manager's Service.

One decision to know: the API server has no identity in the mesh, so no client certificate is asked for. What is served
is a pure function of the request, bounded in size and number; it tells a caller nothing but the sidecar's image and the
platform's addresses.
"""

from __future__ import annotations

import asyncio
import json

import fastapi
import structlog
from fastapi import responses

from meshwright.core import errors
from meshwright.core.http_server import HttpServer
from meshwright.core.identity import IdentitySource
from meshwright.manager import metrics
from meshwright.manager.inject import review
from meshwright.manager.inject.options import Options

MAX_BODY = 4 * 1024 * 1024  # the API server takes objects of 1.5 MiB, and sends old and new
_MAX_CONNECTIONS = 64
_BODY_SECONDS = 8.0  # below the 10 s that the API server waits
_GRACE_SECONDS = 2

_log = structlog.get_logger(__name__)


def webhook(address: str, identity: IdentitySource, options: Options) -> HttpServer:
    """Return the server, to be entered; it asks callers for no certificate."""
    return HttpServer(
        "webhook",
        address,
        application(options),
        identity=identity,
        http="h11",
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        h11_max_incomplete_event_size=64 * 1024,
    )


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
