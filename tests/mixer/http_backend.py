"""A real HTTP server in-process for adapters that speak to one: keeps what it gets, answers what it is told."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import fastapi
from fastapi import Request, Response

from meshwright.core.http_server import HttpServer


class HttpBackend:
    """`async with HttpBackend() as backend:`; `url` is where it listens."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.status, self.body = 202, b""
        app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

        @app.api_route("/{path:path}", methods=["GET", "POST"])
        async def take(path: str, request: Request) -> Response:
            self.requests.append((f"/{path}", dict(request.headers), await request.body()))
            return Response(self.body, self.status)

        self._server = HttpServer("backend", "127.0.0.1:0", app, timeout_graceful_shutdown=1)

    @property
    def url(self) -> str:
        return f"http://{self._server.address}"

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        await self._server.__aexit__(kind, error, trace)
