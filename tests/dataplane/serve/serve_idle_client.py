"""A process that opens many connections, says nothing on them, and waits until the server has closed them all.

usage: serve_idle_client.py HOST PORT COUNT [FOLDER with chain.pem and key.pem]. Prints "ready" and "closed".
"""

from __future__ import annotations

import asyncio
import resource
import ssl
import sys
from pathlib import Path

from serve_hostile import ACK, PREFACE, SETTINGS, frame, settings


class Idle(asyncio.Protocol):
    """A connection that begins HTTP/2 and is quiet from then on."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(PREFACE + settings() + frame(SETTINGS, ACK))

    def data_received(self, data: bytes) -> None:
        if not self.begun.done():
            self.begun.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.begun.done():
            self.begun.set_exception(error or ConnectionError("closed before it began"))
        self.ended.set_result(None)


async def main(host: str, port: int, count: int, folder: Path | None) -> None:
    """Open them a hundred at a time."""
    context = None
    if folder is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        context.load_cert_chain(folder / "chain.pem", folder / "key.pem")
    loop = asyncio.get_running_loop()
    made: list[Idle] = []
    while len(made) < count:
        some = [loop.create_connection(Idle, host, port, ssl=context) for _ in range(min(100, count - len(made)))]
        protocols = [protocol for _, protocol in await asyncio.gather(*some)]
        await asyncio.gather(*(protocol.begun for protocol in protocols))
        made += protocols
    print("ready", flush=True)
    await asyncio.gather(*(protocol.ended for protocol in made))
    print("closed", flush=True)


if __name__ == "__main__":
    wanted = int(sys.argv[3])
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), wanted, Path(sys.argv[4]) if len(sys.argv) > 4 else None))
