"""One service of the demo's application: answers with its name and version, and asks the next service if there is one.

One decision to know: it knows nothing of the mesh but where it serves and whom it asks: two Unix sockets beside a
sidecar that was made for it (`meshwright demo`), or TCP and a service's name where traffic is redirected (Kubernetes).
Identity, policy and routes are the sidecar's. It propagates W3C trace context, and where it can reach the Workload API
it sends its own spans with the identity that it gets there.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import sys
from pathlib import Path
from typing import Any, ClassVar

import fastapi
import pydantic
from fastapi import Request
from fastapi.responses import JSONResponse
from opentelemetry import propagate, trace
from pydantic import Field

from meshwright.core import errors, process, settings
from meshwright.core.http_server import HttpServer
from meshwright.core.settings import ServiceSettings
from meshwright.core.telemetry import Telemetry
from meshwright.platform.demo.client import Pool, over_socket, over_tcp
from meshwright.platform.demo.workload_api import WorkloadIdentity


class AppSettings(ServiceSettings):
    """A demo service."""

    part: ClassVar[str] = "demo-service"
    summary: ClassVar[str] = __doc__ or ""

    name: str = Field(description="Name of the service.")
    version: str = Field("v1", description="Version that answers carry.")
    upstream: str | None = Field(
        None,
        description="Service to ask: its host name with --outbound, host:port without. None: the last of the chain.",
    )
    outbound: Path | None = Field(
        None, description="Unix socket on which the sidecar takes calls to other services. None: calls are made by TCP."
    )
    workload_api: Path | None = Field(
        None, description="Unix socket of the node's SPIFFE Workload API. None: the service sends no spans of its own."
    )

    @pydantic.model_validator(mode="after")
    def _security(self) -> AppSettings:
        """Replace the rules of the platform's parts: an application serves plain text, its sidecar does the rest."""
        if self.otlp and not self.workload_api:
            raise ValueError("workload_api: needed with --otlp: the collector is only spoken to with mutual TLS")
        return self


def application(settings: AppSettings, sidecar: Pool | None) -> fastapi.FastAPI:
    """Build the HTTP application; `sidecar` takes calls to other services, None for the end of the chain."""
    tracer = trace.get_tracer("meshwright.demo")
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    async def call(request: Request, own: dict[str, Any]) -> int:
        """Ask the next service, put its answer into `own` and return the status to answer with."""
        assert sidecar is not None
        with tracer.start_as_current_span(f"call {settings.upstream}", kind=trace.SpanKind.CLIENT):
            headers: dict[str, str] = {}
            propagate.inject(headers)
            if request_id := request.headers.get("x-request-id"):
                headers["x-request-id"] = request_id
            path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            try:
                answer = await sidecar.get(str(settings.upstream), path, headers)
            except errors.MeshwrightError as error:
                own["error"] = str(error)
                return 502
        if answer.headers.get("content-type") == "application/json":
            own["upstream"] = json.loads(answer.body)
        else:
            own["error"] = answer.body[:500].decode(errors="replace")
        return answer.status

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"state": "ok"}

    @app.get("/{path:path}")
    async def answer(path: str, request: Request) -> JSONResponse:
        own: dict[str, Any] = {
            "service": settings.name,
            "version": settings.version,
            # Written by the sidecar, which removes what a caller claims: the identity proved by the handshake.
            "caller": request.headers.get("x-forwarded-client-cert", ""),
            "process": os.getpid(),
        }
        parent = propagate.extract(dict(request.headers))
        kind = trace.SpanKind
        with tracer.start_as_current_span(f"{settings.name} /{path}", parent, kind.SERVER) as span:
            span.set_attribute("http.request.method", "GET")
            span.set_attribute("url.path", f"/{path}")
            status = 200
            if sidecar is not None and path != "admin":
                status = await call(request, own)
            span.set_attribute("http.response.status_code", status)
        return JSONResponse(own, status_code=status)

    return app


async def run(settings: AppSettings, stop: asyncio.Event) -> None:
    """Serve on the Unix socket until `stop` is set."""
    async with contextlib.AsyncExitStack() as stack:
        if settings.workload_api:
            identity = await stack.enter_async_context(WorkloadIdentity(settings.workload_api))
            await stack.enter_async_context(
                Telemetry(settings.part, settings.otlp, identity, settings.trust_domain, service=settings.name)
            )
        upstream = _upstream(settings)
        if upstream:
            stack.callback(upstream.forget)
        server = HttpServer(
            "http",
            settings.listen,
            application(settings, upstream),
            socket_mode=0o666,  # its sidecar may be another user; the folder says who gets here
            timeout_keep_alive=600,  # the sidecar keeps its connections; closing them under it fails requests
            timeout_graceful_shutdown=2,
        )
        await stack.enter_async_context(server)
        ends = {asyncio.create_task(server.ended(), name="http"), asyncio.create_task(stop.wait(), name="stop")}
        _, waiting = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        if not stop.is_set():
            raise errors.Unavailable(f"the HTTP server on {settings.listen} ended by itself")


def _upstream(settings: AppSettings) -> Pool | None:
    if settings.upstream is None:
        return None
    if settings.outbound:
        return over_socket(settings.outbound)
    host, _, port = settings.upstream.rpartition(":")
    if not host or not port.isdecimal():
        raise errors.ConfigError(f"--upstream: {settings.upstream!r} isn't host:port (or give --outbound)")
    return over_tcp(host, int(port))


def main() -> int:
    """Run one service."""
    return process.run("demo-service", functools.partial(run, settings.load(AppSettings)))


if __name__ == "__main__":
    sys.exit(main())
