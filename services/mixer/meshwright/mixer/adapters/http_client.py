"""The HTTP client of adapters that speak to a backend by HTTP: deadlines, a bounded pool, authorities of one's own."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

_CONNECTIONS, _KEPT = 8, 4


@asynccontextmanager
async def http_client(ca_certificates: str | None, timeout_seconds: float) -> AsyncIterator[httpx.AsyncClient]:
    """A client whose whole call takes at most `timeout_seconds`; `ca_certificates` is a file, None: the system's."""
    import httpx

    from meshwright.core.http_transport import HttpTransport

    limits = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_KEPT)
    context = ssl.create_default_context(cafile=ca_certificates) if ca_certificates else True
    transport = HttpTransport(verify=context, limits=limits, trust_env=False)
    async with httpx.AsyncClient(transport=transport, timeout=timeout_seconds, follow_redirects=False) as client:
        yield client
