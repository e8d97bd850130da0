"""What a workload's proxy tells of the requests that it carries."""

from __future__ import annotations

from dataclasses import dataclass

from meshwright.core.config import Key


@dataclass(frozen=True, slots=True)
class Observing:
    """What one object says of the selected workloads' spans: shares in percent, None: it says nothing of them.

    `inbound` are of requests that they serve, `outbound` of those that they send.
    """

    origin: Key
    selector: tuple[tuple[str, str], ...] = ()
    inbound: float | None = None
    outbound: float | None = None
