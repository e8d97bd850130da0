"""gRPC on a Unix socket, where the kernel says who is calling: only the native front passes its word on."""

from __future__ import annotations

import os
from pathlib import Path

from meshwright.citadel.infrastructure import files
from meshwright.core.grpc import Authorization, Front, Server, limits
from meshwright.core.settings import ServiceSettings

OWNER = 0o600  # of the socket: this user and root
EVERYBODY = 0o666


def server(address: str, mode: int, settings: ServiceSettings, *, front: Front = "native") -> Server:
    """Return a server at ``unix:/path``; the path's folder is made, closed to others, when it doesn't exist."""
    files.directory(Path(address.removeprefix("unix:")).parent)
    users = Authorization(
        [
            ("/grpc.reflection.", [f"unix:uid={os.getuid()}", "unix:uid=0"]),
            ("/", ["unix:uid=*"]),  # whom the socket's rights let in; the servicers look closer
        ]
    )
    return Server(
        address,
        None,
        front=front,
        part=settings.part,
        authorize=users,
        requires=("word of the kernel on who calls",),
        access_log=settings.access_log,
        limits=limits.polling(settings.busy_poll),
        socket_mode=mode,
    )
