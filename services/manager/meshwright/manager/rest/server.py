"""The listener of the REST API: mutual TLS, and only the administrator's SPIFFE ID is let in, as by gRPC."""

from __future__ import annotations

from typing import Any

from meshwright.core.http_server import HttpServer
from meshwright.core.identity import IdentitySource

_MAX_CONNECTIONS = 256  # with 100 watchers there is room for others
_GRACE_SECONDS = 2


def server(address: str, application: Any, identity: IdentitySource, caller: str) -> HttpServer:
    """Return the server, to be entered; `caller` is the one SPIFFE ID that may speak."""

    def admit(certificate: dict[str, Any] | None) -> bool:
        names = [value for kind, value in (certificate or {}).get("subjectAltName", ()) if kind == "URI"]
        return names == [caller]

    return HttpServer(
        "rest",
        address,
        application,
        identity=identity,
        admit=admit,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        h11_max_incomplete_event_size=64 * 1024,
    )
