"""Builds the dashboard: the parts' APIs, the page's files, access, and an HTTP server on loopback.

One decision to know: this port speaks plain HTTP, since a browser has no identity of the mesh. It is on loopback,
answers nothing without the session, and what it shows can't be changed through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.resources
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import fastapi
from fastapi import Request
from fastapi.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse

from meshwright.core.http_server import HttpServer
from meshwright.platform.dashboard.access import COOKIE, Access
from meshwright.platform.dashboard.picture import Painter, painting
from meshwright.platform.up.app import Platform
from meshwright.platform.up.ports import HOST

_PERIOD_SECONDS = 2.0
_VIEWERS = 8  # streams of events at once; each costs a question to every part in each period
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@contextlib.asynccontextmanager
async def serving(platform: Platform) -> AsyncIterator[str]:
    """Serve the dashboard for the length of the context; yield the address that opens it once."""
    port = platform.ports.dashboard.number
    access = Access(port)
    async with painting(platform) as painter:
        server = HttpServer("dashboard", f"{HOST}:{port}", build(painter, access), timeout_graceful_shutdown=1)
        async with server:
            yield f"http://{HOST}:{port}/?token={access.token}"


def build(painter: Painter, access: Access) -> fastapi.FastAPI:
    """Return the application."""
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    files = {entry.name: entry.read_bytes() for entry in (importlib.resources.files(__package__) / "pages").iterdir()}
    viewers = 0

    @app.middleware("http")
    async def guard(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        token = request.query_params.get("token")
        if not access.is_ours(request.headers.get("host", "")):
            answer: Response = PlainTextResponse("this server has another name\n", 421)
        elif request.url.path == "/" and token is not None:
            answer = _opened(access, token)
        elif not access.allows(request.cookies.get(COOKIE)):
            answer = PlainTextResponse("open the address that `meshwright up` printed; it works once\n", 401)
        else:
            answer = await go_on(request)
        answer.headers.update(_HEADERS)
        return answer

    @app.get("/events")
    async def events(request: Request) -> Response:
        if viewers >= _VIEWERS:
            return PlainTextResponse(f"{_VIEWERS} pages are open already: close one\n", 503)

        async def pictures() -> AsyncIterator[str]:
            nonlocal viewers
            viewers += 1
            try:
                while not await request.is_disconnected():
                    yield f"data: {json.dumps(await painter.paint())}\n\n"
                    await asyncio.sleep(_PERIOD_SECONDS)
            finally:
                viewers -= 1

        return StreamingResponse(pictures(), media_type="text/event-stream")

    @app.get("/{name:path}")
    async def file(name: str) -> Response:
        name = name or "index.html"
        if name not in files:
            return PlainTextResponse("there is no such page\n", 404)
        return Response(files[name], media_type=_TYPES[name.rpartition(".")[2]])

    return app


def _opened(access: Access, token: str) -> Response:
    session = access.open(token)
    if session is None:
        return PlainTextResponse(
            "this address was used already, or is wrong: restart `meshwright up` for another\n", 401
        )
    answer = RedirectResponse("/", 303)
    answer.set_cookie(COOKIE, session, httponly=True, samesite="strict", path="/")
    return answer
