"""The HTTP client's connections end with the tasks that make them."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from meshwright.core.http_transport import HttpTransport


@pytest.mark.parametrize("moment", ["handshake", "answer"])
async def test_a_cancelled_request_leaves_no_connection(moment: str) -> None:
    """The server sees the end of it; before, one in its TLS handshake stayed open until it was collected."""
    begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    ended: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        begun.set_result(None)
        ended.set_result(await reader.read())
        writer.close()

    scheme = "https" if moment == "handshake" else "http"
    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport = HttpTransport(verify=True, trust_env=False)
    async with server, httpx.AsyncClient(transport=transport) as client:
        task = asyncio.create_task(client.get(f"{scheme}://127.0.0.1:{port}/"))
        await begun
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(10):
            await ended
