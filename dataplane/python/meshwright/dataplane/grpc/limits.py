"""What one server or channel takes at most; each limit answers in a way that the peer can read."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a server; a channel uses those on sizes and times."""

    message_size: int = 4 << 20
    """Bytes of one received message, as in grpcio; a longer one ends its call with RESOURCE_EXHAUSTED."""
    metadata_size: int = 16 << 10
    """Bytes of all metadata of a call; more is refused by HTTP/2."""
    concurrent_streams: int = 1000
    """Calls at a time on one connection; the peer queues further ones."""
    connections: int = 4096
    """Connections at a time; a further one is closed at once."""
    pending_calls: int = 8192
    """Calls at a time that Python works on; a further one ends with RESOURCE_EXHAUSTED."""
    handshake_seconds: float = 10.0
    """Time for TLS and the beginning of HTTP/2, each."""
    threads: int = 16
    """Threads for handlers that are not `async`; further calls wait for one."""
