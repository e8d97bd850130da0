"""Health and metrics over HTTP, in the service's own event loop: /healthz (alive), /readyz (serving), /metrics.

Reached by a Unix socket that only this user opens (0600), or over TCP with mutual TLS by the platform's identities.
FastAPI is imported when the listener starts, because it costs more start time than all else here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from meshwright.core import errors
from meshwright.core.health import Health
from meshwright.core.http_server import HttpServer
from meshwright.core.identity import SYSTEM_NAMESPACE, IdentitySource

_MAX_CONNECTIONS = 64  # at once; further ones are answered 503
_GRACE_SECONDS = 2
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
_OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_END = "# EOF\n"  # of OpenMetrics

Exposition = Callable[[bool], str]
"""Metrics as text: in OpenMetrics when asked so, without its end mark; else in Prometheus' format."""


def _all_metrics(openmetrics: bool) -> str:
    import prometheus_client
    from prometheus_client.openmetrics import exposition

    if openmetrics:
        text: bytes = exposition.generate_latest(prometheus_client.REGISTRY)  # type: ignore[no-untyped-call]
        return text.decode().removesuffix(_END)
    return prometheus_client.generate_latest().decode()


class Admin:
    """`async with Admin(address, health, identity):`; does nothing when `address` is None.

    `address` is ``unix:/path`` or ``host:port``; `metrics` are what it shows (by default everything that is
    registered with prometheus_client); `callers` are the SPIFFE IDs that may ask over TCP, a trailing ``*`` fits any
    ending (by default this trust domain's platform parts).
    """

    def __init__(
        self,
        address: str | None,
        health: Health,
        identity: IdentitySource | None = None,
        *,
        metrics: Exposition = _all_metrics,
        callers: Sequence[str] | None = None,
    ) -> None:
        self._is_plain = bool(address) and str(address).startswith("unix:")
        if address and not self._is_plain and identity is None:
            raise errors.ConfigError(
                f"{address} would be served in plain text", field="admin", remedy="use unix:/path, or give an identity"
            )
        self.address = address
        self._health, self._identity, self._callers = health, identity, callers
        self._metrics = [metrics]
        self._server: HttpServer | None = None

    def show(self, metrics: Exposition) -> None:
        """Show more metrics, behind those that are there."""
        self._metrics.append(metrics)

    async def __aenter__(self) -> Self:
        """Bind and serve; `address` then holds the port that was taken for port 0."""
        if self.address is None:
            return self
        self._server = HttpServer(
            "admin",
            self.address,
            self._application(),
            identity=None if self._is_plain else self._identity,
            admit=None if self._is_plain else self._allows,
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            h11_max_incomplete_event_size=16 * 1024,
        )
        await self._server.__aenter__()
        self.address = self._server.address
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop serving and remove the socket."""
        if self._server is not None:
            await self._server.__aexit__(kind, error, trace)

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

        async def metrics(request: Any) -> Any:
            """Metrics in Prometheus' text format, or in OpenMetrics for who accepts it."""
            openmetrics = "application/openmetrics-text" in request.headers.get("accept", "")
            text = "".join([part(openmetrics) for part in self._metrics])
            if openmetrics:
                return responses.Response(text + _END, media_type=_OPENMETRICS)
            return responses.Response(text, media_type=_PROMETHEUS)

        application.add_route("/metrics", metrics)
        return application

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
