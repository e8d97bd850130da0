"""Says in time that the mesh CA ends: a root that ended without a line in any log has taken whole meshes down."""

from __future__ import annotations

from datetime import timedelta

import prometheus_client

from meshwright.citadel.ca.authority import Authority
from meshwright.core import clock as clocks
from meshwright.core.health import Health

PART = "authority"  # in health
WARN_BEFORE = timedelta(days=90)

ENDS = prometheus_client.Gauge("meshwright_citadel_authority_not_after_seconds", "End of the mesh CA, Unix time")

_LOOK_SECONDS = 60.0


async def watch_authority(authority: Authority, health: Health, clock: clocks.Clock) -> None:
    """Keep health true about the CA's end, until cancelled."""
    ENDS.set(authority.not_after.timestamp())
    while True:
        left = authority.not_after - clock.now()
        if left <= timedelta(0):
            health.set(PART, False, f"the mesh CA ended at {authority.not_after.isoformat()}")
        elif left < WARN_BEFORE:
            health.degrade(PART, f"the mesh CA ends at {authority.not_after.isoformat()}: rotate it")
        else:
            health.set(PART, True)
        await clock.sleep(_LOOK_SECONDS)
