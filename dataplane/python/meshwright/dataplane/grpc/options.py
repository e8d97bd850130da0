"""How a channel behaves beside its limits and its service config."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOptions:
    """Options of a channel: keep-alive, idleness, lookups, back-off."""

    keep_alive_seconds: float | None = 310.0
    """A ping goes to the server after this time without a word from it; None: none. grpc-go and grpcio close
    connections that ping more often than every five minutes."""
    keep_alive_timeout_seconds: float = 20.0
    """Without an answer to a ping in this time the connection is broken."""
    keep_alive_without_calls: bool = False
    """Whether to ping while no call is under way."""
    idle_seconds: float = 1800.0
    """After this time without a call the connections are closed until the next one."""
    resolve_interval_seconds: float = 30.0
    """A name is looked up again not earlier than this after the last time."""
    first_back_off_seconds: float = 0.1
    """The pause after the first failure to connect to an address; each further one doubles it."""
    longest_back_off_seconds: float = 5.0
    """The longest pause."""
    retry_buffer: int = 256 << 10
    """Bytes of requests that a streaming call keeps for another attempt; one that sent more is not repeated."""
