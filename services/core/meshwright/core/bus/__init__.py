"""What happens, told to whoever listens: a `Bus` on NATS, or in memory for a service that runs alone.

`connect(settings, health)` picks one. Facts don't travel here: they are in the store, and a lost notice must never lose
one. What must not be lost (telemetry records) goes through durable streams, acknowledged only when it is taken.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from meshwright.core.bus.api import Bus, Delivery, Message
from meshwright.core.bus.memory import MemoryBus
from meshwright.core.bus.nats import NatsBus
from meshwright.core.bus.server_config import Cluster, server_config
from meshwright.core.health import Health
from meshwright.core.settings import ServiceSettings

__all__ = ["Bus", "Cluster", "Delivery", "MemoryBus", "Message", "NatsBus", "connect", "server_config"]


@contextlib.asynccontextmanager
async def connect(settings: ServiceSettings, health: Health | None = None) -> AsyncIterator[Bus]:
    """Open the bus that the settings name; in memory when they name none.

    A server that can't be reached yet is no error: the bus connects when it comes, and `health` says so under ``bus``.
    """
    if not settings.nats:
        yield MemoryBus()
        return
    async with NatsBus(settings.nats[0], settings.nats_tls, name=settings.part, health=health) as bus:
        yield bus
