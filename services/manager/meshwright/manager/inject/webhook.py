"""The webhooks of the API server: pods get their sidecar, and objects of SMI another version.

HTTPS with the manager's own certificate, whose DNS name is the manager's Service. One decision to know: the API server
has no identity in the mesh, so no client certificate is asked for. What is served is a pure function of the request,
bounded in size and number; it tells a caller nothing but the sidecar's image and the platform's addresses.
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
from meshwright.manager.smi import review as conversion_review

MAX_BODY = 4 * 1024 * 1024  # the API server takes objects of 1.5 MiB, and sends old and new
MAX_OBJECTS_BODY = 32 * 1024 * 1024  # of a conversion: a whole list comes as one review
_CONVERSIONS = 2  # at once; others wait
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
    """Return the HTTP application: POST /inject, POST /convert, GET /healthz."""
    app = fastapi.FastAPI(title="Meshwright webhooks", docs_url=None, redoc_url=None, openapi_url=None)
    converting = asyncio.Semaphore(_CONVERSIONS)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"state": "ok"}

    @app.post("/inject")
    async def inject(request: fastapi.Request) -> responses.JSONResponse:
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                body = await _bounded(request, MAX_BODY)
            answered = review.answer(json.loads(body), options)
        except _FAULTS as error:
            metrics.INJECTIONS.labels("malformed").inc()
            return _fault(error)
        response = answered["response"]
        outcome = "refused" if not response["allowed"] else "injected" if "patch" in response else "unchanged"
        metrics.INJECTIONS.labels(outcome).inc()
        if outcome == "refused":
            _log.warning("injection_refused", reason=response["status"]["message"][:500])
        return responses.JSONResponse(answered)

    @app.post("/convert")
    async def convert(request: fastapi.Request) -> responses.Response:
        try:
            async with asyncio.timeout(_BODY_SECONDS), converting:
                body = await _bounded(request, MAX_OBJECTS_BODY)
                # In a thread: a list of thousands takes longer than proxies should wait for their configuration.
                status, answered = await asyncio.to_thread(_converted, body)
        except _FAULTS as error:
            metrics.CONVERSIONS.labels("malformed").inc()
            return _fault(error)
        metrics.CONVERSIONS.labels(status).inc()
        return responses.Response(answered, media_type="application/json")

    return app


def _converted(body: bytes) -> tuple[str, bytes]:
    answered = conversion_review.answer(json.loads(body))
    result = answered["response"]["result"]
    if result["status"] != "Success":
        _log.warning("conversion_refused", reason=result["message"][:500])
    return result["status"].lower(), json.dumps(answered, ensure_ascii=False).encode()


async def _bounded(request: fastapi.Request, limit: int) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise errors.Exhausted(f"the body has more than {limit} bytes")
    return bytes(body)


_FAULTS = (TimeoutError, errors.Exhausted, errors.ConfigError, ValueError, RecursionError)


def _fault(error: Exception) -> responses.JSONResponse:
    match error:
        case TimeoutError():
            status, message = 408, f"the body didn't come in {_BODY_SECONDS:g} s"
        case errors.Exhausted():
            status, message = 413, str(error)
        case _:
            status, message = 400, str(error) or "the body is nested too deeply"
    return responses.JSONResponse({"error": message}, status_code=status)
