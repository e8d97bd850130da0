"""gRPC on a Unix socket, where the kernel says who is calling."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from meshwright.citadel.infrastructure import files
from meshwright.core import errors
from meshwright.dataplane.grpc import NativeServer

OWNER = 0o600  # of the socket: this user and root
EVERYBODY = 0o666

_GRACE_SECONDS = 2.0


@contextlib.asynccontextmanager
async def serve(address: str, mode: int, add: Callable[[NativeServer], None]) -> AsyncIterator[str]:
    """Serve what `add` registers at ``unix:/path``; its folder is made, closed to others, when it doesn't exist."""
    files.directory(Path(address.removeprefix("unix:")).parent)
    server = NativeServer(address, None, socket_mode=mode)
    add(server)
    try:
        bound = await server.start()
    except OSError as error:
        raise errors.Unavailable(f"can't listen on {address}: {error}") from error
    try:
        yield bound
    finally:
        await server.stop(_GRACE_SECONDS)
