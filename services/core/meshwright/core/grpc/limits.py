"""Limits and timers of every connection of the platform's own; all sizes in bytes."""

from __future__ import annotations

from dataclasses import replace

from meshwright.dataplane.grpc import Limits

DEFAULT = Limits(
    message_size=8 << 20,  # a whole file of configuration, with room
    metadata_size=32 << 10,
    concurrent_streams=1024,
)
"""What a server or channel takes when its service names nothing else."""


def polling(microseconds: float | None) -> Limits:
    """Return the limits of a server whose io threads poll for so long (`ServiceSettings.busy_poll`)."""
    return replace(DEFAULT, busy_poll_seconds=None if microseconds is None else microseconds / 1e6)


DEFAULT_DEADLINE_SECONDS = 10.0  # for unary calls whose caller gave none
