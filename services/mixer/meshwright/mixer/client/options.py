"""How a client behaves. Defaults are those of the original sidecar."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Times in seconds."""

    timeout: float = 5.0
    """Of one attempt of a call."""
    network_fail_open: bool = True
    """What passes when mixer gives no answer: everything, or nothing."""
    retries: int = 0
    """Further attempts of a Check that mixer didn't answer."""
    report_retries: int = 5
    """Further attempts of a Report that mixer didn't take; then its records are lost, and counted."""
    retry_base: float = 0.08
    """Before the first further attempt at most; it doubles with each."""
    retry_max: float = 1.0
    check_entries: int = 10_000
    """Answers that are kept; zero: none."""
    quota_entries: int = 10_000
    """Quotas, each with its dimensions, of which amounts are fetched ahead; zero: none."""
    prefetch_minimum: int = 10
    """Of an amount fetched ahead."""
    prefetch_window: float = 1.0
    """What was asked for in this time is fetched ahead."""
    prefetch_pause: float = 0.5
    """Between attempts to fetch an amount ahead when the last one got less than asked."""
    prefetches: int = 64
    """Calls that fetch ahead at the same time; above it requests use what there is."""
    fail_open_seconds: float = 60.0
    """How long an amount may be used that mixer didn't answer for."""
    report_batch: int = 100
    """Records of one Report."""
    report_seconds: float = 1.0
    """How long a record waits for others to fill its batch."""
    report_waiting: int = 10_000
    """Records that wait to be sent; what is above is refused, and counted."""
