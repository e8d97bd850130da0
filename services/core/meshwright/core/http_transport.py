"""httpx's transport, mended: a connection whose TLS handshake is cancelled is closed.

httpcore 1.0 closes it after an error only, so that a task that is cancelled while its connection is being made (a watch
of a manager that ends, say) leaves the socket open until somebody collects it. The `trace` extension, which is public,
tells of both moments.
"""

from __future__ import annotations

from typing import Any

import httpx


class HttpTransport(httpx.AsyncHTTPTransport):
    """`httpx.AsyncHTTPTransport`; its parameters are that one's. Requests may not bring a `trace` of their own."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request."""
        request.extensions["trace"] = _Handshake()
        return await super().handle_async_request(request)


class _Handshake:
    """The connection that a request makes, where it has to make one."""

    def __init__(self) -> None:
        self._stream: Any = None

    async def __call__(self, event: str, info: dict[str, Any]) -> None:
        if event in ("connection.connect_tcp.complete", "connection.connect_unix_socket.complete"):
            self._stream = info["return_value"]
        elif event == "connection.start_tls.failed":
            await self._stream.aclose()
