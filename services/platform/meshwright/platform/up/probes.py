"""Health probes: each asks the part itself, over the way its real clients would, and gives the part's own reason."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path

from meshwright.platform.up.part import Probe, Verdict

_ANSWER_LIMIT = 1 << 20  # bytes


def ready(socket: Path) -> Probe:
    """Probe a part of ours by `GET /readyz` on its admin socket."""

    async def probe() -> Verdict:
        try:
            status, body = await http_get(socket, "/readyz")
        except OSError as error:
            return Verdict(False, f"admin socket: {error.strerror or error}")
        return Verdict(status == 200, "" if status == 200 else _reason(status, body))

    return probe


def http(socket: Path, path: str) -> Probe:
    """Probe by a GET on a Unix socket that must be answered with 200."""

    async def probe() -> Verdict:
        try:
            status, body = await http_get(socket, path)
        except OSError as error:
            return Verdict(False, f"{socket.name}: {error.strerror or error}")
        return Verdict(
            status == 200,
            "" if status == 200 else f"HTTP status {status}: {body[:100].decode(errors='replace').strip()}",
        )

    return probe


async def http_get(socket: Path, path: str, host: str = "localhost") -> tuple[int, bytes]:
    """Make one HTTP/1.1 request on a Unix socket; return status and body. The caller gives the deadline."""
    reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read(_ANSWER_LIMIT)).partition(b"\r\n\r\n")
        while len(body) < _ANSWER_LIMIT and (more := await reader.read(_ANSWER_LIMIT)):
            body += more
    finally:
        writer.close()
    fields = head.split(b" ", 2)
    if len(fields) < 2 or not fields[1].isdigit():
        raise ConnectionResetError(0, "the answer isn't HTTP")
    return int(fields[1]), body


def _reason(status: int, body: bytes) -> str:
    try:
        answer = json.loads(body)
    except ValueError:
        return f"HTTP status {status}"
    parts = answer.get("parts", {}) if isinstance(answer, dict) else {}
    faults = [f"{name}: {part['reason'] or part['state']}" for name, part in parts.items() if part["state"] == "failed"]
    return "; ".join(faults) or f"HTTP status {status}"


def client_tls(folder: Path) -> ssl.SSLContext:
    """Return a client context with the certificate in `folder` that trusts only its ca.pem."""
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


def tls_line(host: str, port: int, folder: Path, prefix: bytes) -> Probe:
    """Probe a server by a mutual TLS handshake, after which its first line must begin with `prefix` (NATS: INFO)."""

    async def probe() -> Verdict:
        try:
            reader, writer = await asyncio.open_connection(host, port, ssl=client_tls(folder))
        except (OSError, ssl.SSLError) as error:
            return Verdict(False, f"{host}:{port}: {error}")
        try:
            line = await reader.readline()
        finally:
            writer.close()
        return Verdict(line.startswith(prefix), "" if line.startswith(prefix) else f"unexpected greeting {line[:40]!r}")

    return probe


def https_health(host: str, port: int, folder: Path) -> Probe:
    """Probe etcd by `GET /health` over mutual TLS: it says whether a quorum answers."""

    async def probe() -> Verdict:
        try:
            reader, writer = await asyncio.open_connection(host, port, ssl=client_tls(folder))
        except (OSError, ssl.SSLError) as error:
            return Verdict(False, f"{host}:{port}: {error}")
        try:
            writer.write(f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = await reader.read(_ANSWER_LIMIT)
        finally:
            writer.close()
        ok = b'"health":"true"' in answer
        return Verdict(ok, "" if ok else answer.partition(b"\r\n\r\n")[2].decode(errors="replace")[:200])

    return probe
