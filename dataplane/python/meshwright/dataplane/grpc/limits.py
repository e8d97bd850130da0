"""What one server or channel takes at most; each limit answers in a way that the peer can read."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from meshwright.dataplane.grpc import busy_poll


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a server; a channel uses those on sizes and times. docs/limits.md says what a peer sees of each."""

    message_size: int = 4 << 20
    """Bytes of one received message, as in grpcio; a longer one ends its call with RESOURCE_EXHAUSTED."""
    metadata_size: int = 16 << 10
    """Bytes of all metadata of a call; more is refused by HTTP/2."""
    concurrent_streams: int = 1000
    """Calls at a time on one connection; the peer queues further ones."""
    connections: int = 4096
    """Connections at a time; a further one is closed at once."""
    connections_per_peer: int = 1024
    """Connections at a time of one peer (SPIFFE ID, DNS name, user id or address); a further one is closed at once."""
    pending_calls: int = 8192
    """Calls at a time that Python works on; a further one ends with RESOURCE_EXHAUSTED."""
    calls_per_second: float | None = None
    """Calls a second of one peer on all its connections; None: any. More end with RESOURCE_EXHAUSTED."""
    calls_at_once: int = 100
    """Calls by which a peer may be ahead of `calls_per_second`."""
    queue_seconds: float | None = 1.0
    """Once calls have waited for Python longer than this, for as long again, new ones end with RESOURCE_EXHAUSTED."""
    memory: int = 256 << 20
    """Bytes of messages that wait for handlers or for the network, of all connections; then new calls end with
    RESOURCE_EXHAUSTED, and those under way aren't read on."""
    memory_per_peer: int = 64 << 20
    """The same for one peer."""
    handshake_seconds: float = 10.0
    """Time for TLS and the beginning of HTTP/2, each."""
    idle_seconds: float | None = 1800.0
    """A connection without calls for this long is told to go (GOAWAY)."""
    age_seconds: float | None = None
    """A connection of this age (± 10 %) is told to go."""
    age_grace_seconds: float = 60.0
    """How long its calls may go on after that."""
    keep_alive_seconds: float = 60.0
    """How often a server asks whether its peer is still there."""
    keep_alive_timeout_seconds: float = 20.0
    """How long it waits for the answer."""
    ping_interval_seconds: float = 5.0
    """Three PINGs faster than this, with no answer to a call between, end a connection ("too_many_pings")."""
    control_frames: int = 1000
    """PING, SETTINGS, RST_STREAM, PRIORITY and empty frames a second, ten times as many at once, on one connection."""
    busy_poll_seconds: float | None = None
    """How long a thread that reads sockets looks on before it sleeps, while call follows call; 0 for never. It costs
    CPU time and saves each such call a core's waking. None: 100 µs where the process has no CPU quota, never where it
    has one. Of all servers of a process the longest counts."""
    threads: int = 16
    """Threads for handlers that are not `async`; further calls wait for one."""

    def __post_init__(self) -> None:
        """Refuse what can't be meant: ValueError names the field."""
        busy_poll.seconds(self.busy_poll_seconds)
        for field in fields(self):
            if field.name == "busy_poll_seconds":
                continue
            value = getattr(self, field.name)
            if value is None:
                if "None" not in str(field.type):
                    raise ValueError(f"limits: {field.name} must be a number")
            elif not value > 0 or not math.isfinite(value):
                never = "; None switches it off" if "None" in str(field.type) else ""
                raise ValueError(f"limits: {field.name} must be more than zero, not {value}{never}")

    @property
    def busy_poll(self) -> float:
        """For how long io threads poll, in seconds: what was given, else the default."""
        return busy_poll.seconds(self.busy_poll_seconds)
