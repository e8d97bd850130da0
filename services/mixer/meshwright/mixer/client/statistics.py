"""What a client did since it was made."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Statistics:
    """Counts; whoever exports metrics reads them."""

    checks: int = 0
    cached_checks: int = 0
    """Decided without mixer, quotas included."""
    quotas: int = 0
    cached_quotas: int = 0
    """Granted or refused from what was fetched ahead."""
    prefetches: int = 0
    failed_calls: int = 0
    records_sent: int = 0
    records_refused: int = 0
    """There was no room."""
    records_lost: int = 0
    """Mixer didn't take them after all attempts."""
    last_failure: str = ""
