"""Says in health whether this node has a forwarder: without one, connections wait or are refused."""

from __future__ import annotations

from meshwright.core.clock import Clock
from meshwright.core.health import Health
from meshwright.nsm_registry.manager.endpoints import LocalEndpoints

_PERIOD_SECONDS = 0.5


async def watch_forwarders(local: LocalEndpoints, health: Health, clock: Clock) -> None:
    """Look until cancelled. Without a forwarder the manager is degraded, not failed: the forwarder waits for it."""
    while True:
        if local.forwarders({}):
            health.set("forwarder", True)
        else:
            health.degrade("forwarder", "no forwarder is registered with this manager")
        await clock.sleep(_PERIOD_SECONDS)
