"""Listening sockets and TLS contexts for asyncio servers that aren't gRPC.

One decision to know: a Unix socket is made with its final rights, never opened up and then closed again, and one
that a killed process left is removed, but one that somebody serves is an error.
"""

from __future__ import annotations

import os
import socket
import ssl
import stat
import tempfile
from pathlib import Path

from meshwright.core import errors
from meshwright.core.identity import X509Identity


def tls_context(identity: X509Identity, *, clients: bool = True) -> ssl.SSLContext:
    """Return a server's TLS context that asks for a client certificate of the identity's bundle.

    Without `clients` it asks for none: for callers that have no identity of ours, as the Kubernetes API server.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=identity.bundle_pem.decode("ascii"))
    with tempfile.NamedTemporaryFile(mode="wb") as file:  # Python reads keys from files only; this one is 0600
        file.write(identity.key_pem + b"\n" + identity.cert_chain_pem)
        file.flush()
        context.load_cert_chain(file.name)
    return context


def bind(address: str, *, mode: int = 0o600) -> socket.socket:
    """Return a socket that listens on ``unix:/path`` or ``host:port``; Unavailable says why it can't.

    `mode` are the rights of a Unix socket's file.
    """
    if not address.startswith("unix:"):
        host, _, port = address.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host.strip("[]"), int(port)))
            listener.listen()
        except (OSError, ValueError) as error:
            listener.close()
            raise errors.Unavailable(f"can't listen on {address}: {error}") from error
        return listener
    path = Path(address.removeprefix("unix:"))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        remove_stale(path)
        os.fchmod(listener.fileno(), mode)  # before bind: Linux makes the file with these rights
        listener.bind(str(path))
        path.chmod(mode)  # what the umask took away
        listener.listen()
    except OSError as error:
        listener.close()
        raise errors.Unavailable(f"can't listen on {address}: {error}") from error
    return listener


def remove(address: str) -> None:
    """Remove the file of a Unix socket that this process served."""
    Path(address.removeprefix("unix:")).unlink(missing_ok=True)


def remove_stale(path: Path) -> None:
    """Remove what a killed process left; a socket that somebody serves is an error."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(f"{path} exists and isn't a socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise FileExistsError(f"{path} is served by another process")
