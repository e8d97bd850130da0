"""What `up` asks citadel for over its admin socket: one-time tokens, registrations, and the command line's identity."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import grpc
from google.protobuf.duration_pb2 import Duration

from meshwright.api.citadel.v1 import admin_pb2, admin_pb2_grpc, registration_pb2
from meshwright.core import errors, sockets
from meshwright.core.grpc import Channel
from meshwright.core.identity import X509Identity

_CALL_SECONDS = 5.0


class Citadel:
    """citadel's admin API on its Unix socket, which knows this user by the kernel's word."""

    def __init__(self, socket: Path) -> None:
        self._channel = Channel(f"unix:{socket}", None)
        self._stub = admin_pb2_grpc.AdminStub(self._channel)

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def mint(self, part: str, path: Path) -> None:
        """Write a one-time token for `part` into the file `path` (0600)."""
        request = admin_pb2.MintTokenRequest(part=part)
        try:
            answer = await self._stub.MintToken(request, timeout=_CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise errors.Unavailable(f"citadel gave no token for {part}: {error.details()}") from error
        write_private(path, answer.token.encode())

    async def register(self, spiffe_id: str, pid: int, ttl: timedelta, *, replace: str = "") -> str:
        """Register exactly the process `pid` as the workload `spiffe_id`, its certificates living for `ttl`.

        `replace` is the id of the registration that this one takes the place of; return this one's id.
        """
        start = sockets.start_time(pid)
        if not start:
            raise errors.NotFound(f"process {pid} is gone: nothing to register as {spiffe_id}")
        registration = registration_pb2.Registration(
            id=replace,
            spiffe_id=spiffe_id,
            selectors=[registration_pb2.Selector(type="unix:pid", value=f"{pid}@{start}")],
            ttl=Duration(seconds=int(ttl.total_seconds())),
        )
        request = admin_pb2.RegisterRequest(registration=registration)
        try:
            answer = await self._stub.Register(request, timeout=_CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise errors.Unavailable(f"citadel didn't register {spiffe_id}: {error.details()}") from error
        return str(answer.id)

    async def unregister(self, registration: str) -> None:
        """Remove a registration; one that is gone is fine."""
        request = admin_pb2.UnregisterRequest(id=registration)
        try:
            await self._stub.Unregister(request, timeout=_CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise errors.Unavailable(f"citadel didn't unregister {registration}: {error.details()}") from error


def write_identity(folder: Path, identity: X509Identity) -> None:
    """Write cert.pem, key.pem and ca.pem (0600); a reader that sees a mixed set looks again (FileIdentity)."""
    write_private(folder / "key.pem", identity.key_pem)
    write_private(folder / "cert.pem", identity.cert_chain_pem)
    write_private(folder / "ca.pem", identity.bundle_pem)


def write_private(path: Path, data: bytes) -> None:
    """Replace the file `path` by one with `data` that only this user reads (0600), at once."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    with open(draft, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)
    draft.rename(path)
