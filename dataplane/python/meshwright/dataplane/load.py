"""The load generator: requests that are due by a schedule, sent and timed in Rust.

One decision to know: a latency counts from when its request was due, not from when it could be sent, so a server that
stalls can't hide how many would have waited. Rate 0 is the other thing: each connection asks again once it has its
answer, as wrk does.
"""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from meshwright.dataplane import _native
from meshwright.dataplane.grpc import identity as identities

Progress = Callable[[float, int, int], object]
"""Called about ten times a second with seconds, good answers and failures; a true answer ends the run early."""

UNIX_SCHEME = "http+unix"  # http+unix://%2Frun%2Fapp.sock/path


@dataclass(frozen=True, slots=True)
class Mesh:
    """Mutual TLS as the mesh does it: an identity, and who the server must be.

    `peer` is a SPIFFE ID, with a trailing * the beginning of one; empty: any member of the own trust domain.
    """

    identity: identities.IdentitySource
    peer: str = ""


@dataclass(frozen=True, slots=True)
class Load:
    """What to send. Times are in seconds; `rate` is in requests a second, 0 for as many as come."""

    url: str
    """http://, https://, grpc:// or grpcs://host[:port]/path (of gRPC /package.Service/Method), or
    http+unix://%2Fsocket%2Fpath/path."""
    rate: float = 0.0
    connections: int = 1
    duration: float = 30.0
    warm_up: float = 0.0
    timeout: float = 10.0
    grpc: bool = False
    """Unary calls of gRPC with `body` as the message, also where the URL's scheme is http or https."""
    method: str = "GET"
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""
    streams: int = 1
    """Calls under way at once on each connection, of gRPC."""
    poisson: bool = False
    """Whether requests come as from many independent users; else evenly."""
    threads: int = 0
    """Threads that send; 0: half of the processors, so that others have some."""
    authorities: bytes | None = None
    """PEM of who may vouch for an https server."""
    mesh: Mesh | None = None
    """Mutual TLS of the mesh, in place of `authorities`."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a run has found; times are in seconds."""

    elapsed: float
    count: int
    """Answers and failures, all of which have a latency."""
    min: float
    mean: float
    deviation: float
    max: float
    percentiles: Mapping[float, float]
    buckets: Sequence[tuple[float, float, int]] = field(repr=False)
    """(from, to, count) of each range of latencies that has any, some five per cent wide."""
    statuses: Mapping[int, int]
    """Answers by status, of HTTP or of gRPC."""
    failures: Mapping[str, int]
    """Requests without an answer, by reason."""
    unsent: int
    """Requests that were due and never sent, because every connection was busy up to the end."""
    lag: Mapping[float, float]
    """Percentiles of the time from when a request was due to when it was sent: waiting for a free connection, and the
    generator's own part."""
    bytes: int
    reconnects: int
    warm_up: int
    grpc: bool

    @property
    def rate(self) -> float:
        """Answers and failures a second."""
        return self.count / self.elapsed if self.elapsed else 0.0

    @property
    def good(self) -> int:
        """Answers below 400, of gRPC those with status 0."""
        if self.grpc:
            return self.statuses.get(0, 0)
        return sum(count for status, count in self.statuses.items() if status < 400)


PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99, 99.999)
_DEFAULT_PORTS = {"http": 80, "https": 443, "grpc": 80, "grpcs": 443}


def run(load: Load, on_progress: Progress | None = None) -> Found:
    """Run a load to its end: blocks without the GIL for at most warm-up, duration and one timeout.

    ValueError names a field that can't be; ConnectionError says that the server can't be reached before the first
    request. What goes wrong later is counted.
    """
    target, url, secure, grpc = _address(load)
    unfollow: Callable[[], None] | None = None
    native: _native.Identity | None = None
    if secure and load.mesh is not None:
        native, unfollow = identities.follow(load.mesh.identity)
    elif secure and load.authorities is None:
        raise ValueError(f"url: {load.url} wants TLS: give the server's authorities, or an identity of the mesh")
    try:
        report = _native.run_load(
            target=target,
            url=url,
            grpc=grpc,
            method=load.method,
            headers=list(load.headers),
            body=load.body,
            rate=load.rate,
            poisson=load.poisson,
            connections=load.connections,
            streams=load.streams,
            duration=load.duration,
            warm_up=load.warm_up,
            timeout=load.timeout,
            threads=load.threads or max(1, (os.cpu_count() or 1) // 2),
            authorities=load.authorities if secure else None,
            identity=native,
            peer=load.mesh.peer if load.mesh else "",
            on_progress=on_progress,
        )
    finally:
        if unfollow:
            unfollow()
    return Found(
        elapsed=report.elapsed,
        count=report.count,
        min=report.min,
        mean=report.mean,
        deviation=report.deviation,
        max=report.max,
        percentiles={share: report.quantile(share / 100) for share in PERCENTILES},
        buckets=report.buckets(),
        statuses=report.statuses,
        failures=report.failures,
        unsent=report.unsent,
        lag={share: report.lag_quantile(share / 100) for share in PERCENTILES},
        bytes=report.bytes,
        reconnects=report.reconnects,
        warm_up=report.warm_up,
        grpc=grpc,
    )


def _address(load: Load) -> tuple[str, str, bool, bool]:
    """Return where to connect, the URL as a request names it, whether TLS is wanted, and whether it is gRPC."""
    try:
        parts = urllib.parse.urlsplit(load.url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"url: {load.url!r}: {error}") from error
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if parts.scheme == UNIX_SCHEME:
        socket = urllib.parse.unquote(parts.netloc)
        if not socket.startswith("/"):
            raise ValueError(f"url: {load.url!r}: write the socket's path as http+unix://%2Frun%2Fapp.sock/path")
        return f"unix:{socket}", f"http://localhost{path}", False, load.grpc
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        known = ", ".join([*_DEFAULT_PORTS, UNIX_SCHEME])
        raise ValueError(f"url: {load.url!r}: write SCHEME://HOST[:PORT]/PATH with a scheme of {known}")
    secure = parts.scheme in ("https", "grpcs")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    authority = host if port is None else f"{host}:{port}"
    scheme = "https" if secure else "http"
    target = f"{host}:{port or _DEFAULT_PORTS[parts.scheme]}"
    return target, f"{scheme}://{authority}{path}", secure, load.grpc or parts.scheme.startswith("grpc")
