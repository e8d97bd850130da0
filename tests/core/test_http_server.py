"""HTTP as a guest of our loop: the rights of its socket, and that it ends as it began."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import httpx
import pytest

from meshwright.core.http_server import HttpServer


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """The smallest ASGI application."""
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


@pytest.mark.parametrize(("given", "mode"), [({}, 0o600), ({"socket_mode": 0o666}, 0o666)])
async def test_a_sockets_rights_are_those_that_were_asked_for(
    short_tmp: Path, given: dict[str, int], mode: int
) -> None:
    """A demo service and its sidecar are different users in containers: neither umask nor default decides."""
    path = short_tmp / "s"
    async with HttpServer("test", f"unix:{path}", answer, **given):
        assert stat.S_IMODE(path.stat().st_mode) == mode
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path))) as client:
            assert (await client.get("http://test/")).status_code == 204
    assert not path.exists()
