"""How many requests a client may send: a bucket that fills by itself.

One decision to know: what answers a response of ours is free. There are as many of those as we sent, and a client that
is sent a lot must not be held back for acknowledging it.
"""

from __future__ import annotations

_BURST = 512.0  # requests at once: an Envoy that starts sends some tens
_PER_SECOND = 100.0
_UNIT = 16 << 10  # bytes that cost as much as one more request


class Allowance:
    """One stream's bucket; times are of one monotonic clock, in seconds."""

    def __init__(self, now: float) -> None:
        self._left, self._at = _BURST, now

    def wait(self, size: int, now: float) -> float:
        """Take a request of `size` bytes; return how many seconds to wait before reading the next."""
        self._left = min(_BURST, self._left + (now - self._at) * _PER_SECOND) - 1 - size / _UNIT
        self._at = now
        return max(0.0, -self._left / _PER_SECOND)
