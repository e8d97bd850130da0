"""Says in time that something ends: a root that ended without a line in any log has taken whole meshes down.

One decision to know: in Kubernetes all certificates of the infrastructure CA are renewed together, by the Job of an
upgrade, so that the login port's stands for those of etcd and NATS, which citadel doesn't see.
"""

from __future__ import annotations

from datetime import timedelta

import prometheus_client

from meshwright.citadel.ca.authority import Authority
from meshwright.core import clock as clocks
from meshwright.core.health import Health
from meshwright.core.identity import IdentitySource

PART = "authority"  # in health
INFRASTRUCTURE = "infrastructure"
WARN_BEFORE = timedelta(days=90)

ENDS = prometheus_client.Gauge("meshwright_citadel_authority_not_after_seconds", "End of the mesh CA, Unix time")
INFRASTRUCTURE_ENDS = prometheus_client.Gauge(
    "meshwright_citadel_infrastructure_not_after_seconds", "End of the login port's certificate, Unix time"
)

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


async def watch_infrastructure(login: IdentitySource, health: Health, clock: clocks.Clock) -> None:
    """Keep health true about the end of the infrastructure CA's certificates, until cancelled."""
    while True:
        ends = login.current().not_after
        INFRASTRUCTURE_ENDS.set(ends.timestamp())
        if ends - clock.now() < WARN_BEFORE:
            remedy = "renew them by an upgrade of the release, then restart etcd and NATS"
            health.degrade(INFRASTRUCTURE, f"etcd's, NATS's and the login port's certificates end at {ends}: {remedy}")
        else:
            health.set(INFRASTRUCTURE, True)
        await clock.sleep(_LOOK_SECONDS)
